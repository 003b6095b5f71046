#include "optim/whole_gradients.hpp"

#include "ops/elementwise.hpp"

namespace red::optim {

WholeGradients::WholeGradients(Stream& stream, const model::ParameterStore& store,
                               parallel::Communicator& tensor)
    : stream_(stream),
      tensor_(tensor),
      memory_("gradients of whole parameters", count_bytes(store)),
      all_(memory_.allocate(num_elements(store), 1)) {
  int64_t offset = 0;
  for (const model::StoredParameter& p : store.parameters()) {
    if (p.spec.cut != model::TensorCut::none) continue;
    parts_.push_back(
        {p.weight.gradient, make_tensor(all_.as<float>() + offset, p.region.num_rows, p.region.num_cols)});
    offset += p.region.size();
  }
}

int64_t WholeGradients::num_elements(const model::ParameterStore& store) {
  int64_t elements = 0;
  for (const model::StoredParameter& p : store.parameters()) {
    if (p.spec.cut == model::TensorCut::none) elements += p.region.size();
  }
  return elements;
}

void WholeGradients::reduce() {
  for (const Part& part : parts_) ops::copy(stream_, part.packed, part.gradient);
  parallel::Request request = tensor_.all_reduce(all_, parallel::ReduceOp::sum);
  tensor_.wait(request, "all-reduce of gains' gradients over the tensor axis");
  for (const Part& part : parts_) ops::copy(stream_, part.gradient, part.packed);
}

}  // namespace red::optim
