#include "train/precision.hpp"

#include "base/log.hpp"
#include "checkpoint/checkpoint.hpp"
#include "config/parse.hpp"

namespace red::train {

using model::Precision;

std::optional<Precision> precision_of(const std::optional<std::filesystem::path>& checkpoint) {
  if (!checkpoint) return std::nullopt;
  config::Sources sources;
  sources.base = {checkpoint::read_metadata(*checkpoint).configuration, (*checkpoint / "index.h5").string()};
  const Precision saved = config::load(sources).config.train.precision;
  return saved == Precision::automatic ? Precision::fp32 : saved;
}

Precision settle_precision(Precision wanted, std::optional<Precision> saved, parallel::Communicator& world,
                           const Stream& stream) {
  double without[1] = {stream.gemm().has_bf16_arithmetic() ? 0.0 : 1.0};
  parallel::Request request = world.all_reduce(make_tensor(without, 1, 1), parallel::ReduceOp::sum);
  world.wait(request, "choice of the precision");
  Precision settled = wanted != Precision::automatic ? wanted : saved.value_or(Precision::automatic);
  if (settled == Precision::automatic) settled = without[0] == 0.0 ? Precision::bf16 : Precision::fp32;
  if (settled == Precision::bf16 && without[0] != 0.0)
    log::warning(
        "train.precision = bf16: {:.0f} of {} ranks have no bf16 arithmetic and convert to fp32, which takes "
        "longer than train.precision = fp32",
        without[0], world.size());
  return settled;
}

}  // namespace red::train
