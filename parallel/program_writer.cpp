#include "parallel/program_writer.hpp"

#include <utility>

#include "base/check.hpp"

namespace red::parallel {

void ProgramWriter::forward(int micro_batch, int chunk) {
  const int at = shape_.virtual_stage(stage_, chunk), last_encoder = shape_.last_encoder();
  if (has_previous(at)) add(Action::receive_activation, micro_batch, at - 1, chunk);
  if (has_memory() && shape_.is_decoder(at) && chunk == 0) {
    add(Action::receive_memory, micro_batch, last_encoder, chunk);
  }
  add(Action::forward, micro_batch, -1, chunk);
  if (has_next(at)) add(Action::send_activation, micro_batch, at + 1, chunk);
  if (has_memory() && at == last_encoder) {
    // The first decoder stage needs it first.
    for (int s = 0; s < shape_.decoder_stages; ++s)
      add(Action::send_memory, micro_batch, shape_.first_decoder() + s, chunk);
  }
}

void ProgramWriter::backward(int micro_batch, Action pass, int chunk) {
  const int at = shape_.virtual_stage(stage_, chunk);
  if (has_next(at)) add(Action::receive_gradient, micro_batch, at + 1, chunk);
  if (has_memory() && at == shape_.last_encoder())
    receive_memory_gradients(micro_batch, shape_.first_decoder());
  add(pass, micro_batch, -1, chunk);
  if (has_previous(at)) add(Action::send_gradient, micro_batch, at - 1, chunk);
  if (has_memory() && shape_.is_decoder(at)) {
    add(Action::send_memory_gradient, micro_batch, shape_.last_encoder(), chunk);
  }
}

void ProgramWriter::receive_memory_gradients(int micro_batch, int from) {
  // The last decoder stage is through first. The order is also that of the sum, and fixed.
  int& next = next_part_[static_cast<std::size_t>(micro_batch)];
  if (next < 0) next = shape_.num_virtual_stages() - 1;
  for (; next >= from; --next)
    add(Action::receive_memory_gradient, micro_batch, next, shape_.virtual_stages - 1);
}

Program ProgramWriter::finish() {
  add(Action::reduce_gradients, -1, -1, 0);
  return std::move(program_);
}

void check_shape(const PipelineShape& shape) {
  RED_CHECK(shape.encoder_stages >= 0 && shape.decoder_stages >= 1 && shape.num_micro_batches >= 1 &&
                shape.virtual_stages >= 1,
            "encoder_stages {} decoder_stages {} micro-batches {} virtual_stages {}", shape.encoder_stages,
            shape.decoder_stages, shape.num_micro_batches, shape.virtual_stages);
}

}  // namespace red::parallel
