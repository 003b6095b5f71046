#include "model/dropout.hpp"

#include "ops/elementwise.hpp"

namespace red::model {

void DropoutSite::drop(const PassContext& context, const TensorAxis& tensor, const DeviceSequences& tokens,
                       const Tensor& y, const Tensor& x) const {
  if (drops(context)) {
    const uint64_t* row_keys = tokens.row_keys + tensor.first_local(tokens.num_tokens);
    ops::dropout(context.stream, y, x, row_keys, 0, dropout_);
  } else if (y.data != x.data) {
    ops::copy(context.stream, y, x);
  }
}

void DropoutSite::drop_columns(const PassContext& context, const DeviceSequences& tokens, const Tensor& x,
                               int64_t first_column) const {
  if (drops(context)) ops::dropout(context.stream, x, x, tokens.row_keys, first_column, dropout_);
}

}  // namespace red::model
