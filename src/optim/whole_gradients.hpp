// Gradients of parameters that every tensor rank holds whole (gains). With sequence parallelism a rank has
// seen its own tokens only, so they are summed over the tensor axis, all in one message; otherwise each rank
// has computed the same.
#pragma once

#include "device/stream.hpp"
#include "model/parameter_store.hpp"
#include "parallel/communicator.hpp"

namespace red::optim {

class WholeGradients {
 public:
  /// `store` and `tensor` must outlive it.
  WholeGradients(Stream& stream, const model::ParameterStore& store, parallel::Communicator& tensor);

  /// Every rank's gradients become the sum over the ranks.
  void reduce();

  std::size_t num_bytes() const { return memory_.capacity(); }
  /// What num_bytes() will be for this store.
  static std::size_t count_bytes(const model::ParameterStore& store) {
    return Arena::rounded(static_cast<std::size_t>(num_elements(store)) * sizeof(float));
  }

 private:
  struct Part {
    Tensor gradient;  ///< (rows, cols)
    Tensor packed;    ///< the same shape, within all_
  };

  static int64_t num_elements(const model::ParameterStore& store);

  Stream& stream_;
  parallel::Communicator& tensor_;
  std::vector<Part> parts_;
  Arena memory_;
  Tensor all_;  ///< (elements, 1)
};

}  // namespace red::optim
