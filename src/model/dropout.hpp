// Where training drops elements: embeddings, the result of each residual branch, the feed-forward block's
// hidden activations, and the result of both final norms (model-and-recipe "Recipe"). Each place has a key of
// its name, each token one of its sample and position, so that masks are the same in every layout,
// micro-batch and resumed run.
#pragma once

#include <string_view>

#include "model/block.hpp"
#include "model/device_batch.hpp"

namespace red::model {

class DropoutSite {
 public:
  DropoutSite() = default;
  /// name: "decoder.layers.3.ffn" or the like.
  DropoutSite(const DropoutConfig& config, std::string_view name)
      : dropout_{config.rate, hash_name(name, config.seed)} {}

  bool exists() const { return dropout_.rate > 0.0F; }
  /// y = x with elements dropped; a copy where nothing is, none where y is x. The backward pass is the same.
  /// x has own rows of `tokens` (model/tensor_axis.hpp).
  void drop(const PassContext& context, const TensorAxis& tensor, const DeviceSequences& tokens,
            const Tensor& y, const Tensor& x) const;
  /// In place, over all rows of `tokens`; column 0 is `first_column` of the whole.
  void drop_columns(const PassContext& context, const DeviceSequences& tokens, const Tensor& x,
                    int64_t first_column) const;

 private:
  bool drops(const PassContext& context) const { return exists() && context.training; }

  ops::Dropout dropout_;
};

}  // namespace red::model
