#include "model/block.hpp"

#include "ops/norm.hpp"

namespace red::model {

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

}  // namespace red::model
