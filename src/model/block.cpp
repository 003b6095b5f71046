#include "model/block.hpp"

#include "model/dropout.hpp"
#include "ops/matmul_few_rows.hpp"
#include "ops/norm.hpp"

namespace red::model {

void multiply(const PassContext& context, const Tensor& c, const Tensor& a, const Tensor& weight,
              ops::Transpose transpose, float alpha) {
  if (context.generating && ops::few_rows_pay(a.rows, weight.dtype)) {
    ops::matmul_few_rows(context.stream, c, a, weight, transpose, alpha);
  } else {
    ops::matmul(context.stream, c, a, ops::Transpose::no, weight, transpose, alpha);
  }
}

void begin_block(const PassContext& context, ResidualStream& stream, const Tensor& x_out,
                 const Tensor& normed, const Tensor& inv_rms, const Tensor& gain) {
  const auto epsilon = static_cast<float>(context.config.norm_epsilon);
  if (stream.branch.empty()) {
    ops::rms_norm(context.stream, normed, inv_rms, stream.x, gain, epsilon);
  } else {
    ops::add_rms_norm(context.stream, x_out, normed, inv_rms, stream.x, stream.branch, gain, epsilon);
    stream = {x_out, {}};
  }
}

Tensor allocate_result_gradient(const TensorAxis& tensor, Arena& arena, int64_t tokens, int64_t d_model,
                                DType dtype, bool apart) {
  return apart || tensor.sequence_parallel() ? tensor.allocate_full(arena, tokens, d_model, dtype) : Tensor{};
}

Tensor gather_result_gradient(const PassContext& context, const TensorAxis& tensor, const DropoutSite& site,
                              const DeviceSequences& tokens, const Tensor& d_result, const Tensor& d_out) {
  if (d_result.empty()) return d_out;
  site.drop(context, tensor, tokens, tensor.local(d_result), d_out);
  tensor.enter(d_result);
  return d_result;
}

}  // namespace red::model
