// One of a chain of programs, on the CPU and on the CUDA backend, each of which loads what the one before
// saved and saves it again in every layout of its ranks:
//   save_again_program red|dec FROM TO     FROM: a checkpoint, or "new" to train one
// Prints each checkpoint's content digest and folder, below TO.
#include <fmt/format.h>

#include <cstdio>
#include <string_view>

#include "base/log.hpp"
#include "checkpoint/content_digest.hpp"
#include "parallel/device_communicator.hpp"
#include "train/save_again.hpp"

namespace red::test {
namespace {

namespace fs = std::filesystem;

/// RedLLM: bf16 matrices and factored state; DecLLM: fp32 and unfactored.
config::RunConfig config_of(model::Kind kind) {
  config::RunConfig config = small_config(kind);
  config.train.steps = 2;
  if (kind == model::Kind::dec) return config;
  config.train.precision = model::Precision::bf16;
  config.optimizer.factored = true;
  config.optimizer.min_dim_to_factor = 16;
  return config;
}

void print(parallel::Communicator& world, const fs::path& checkpoint) {
  if (world.rank() != 0) return;
  fmt::print("{} {}\n", checkpoint::content_digest(checkpoint::Reader(checkpoint)), checkpoint.string());
  std::fflush(stdout);
}

void save_in_every_layout(parallel::MpiEnvironment& mpi, model::Kind kind, fs::path from,
                          const fs::path& to) {
  const config::RunConfig config = config_of(kind);
  if (from == "new") {
    run(mpi.world(), layouts(mpi.size(), config.model).front(), config, to / "run");
    from = checkpoint::find_latest(to / "run/checkpoints").value();
    print(mpi.world(), from);
  }
  Stream stream(1);
  const auto world = parallel::device_communicator(mpi, stream, {});
  int count = 0;
  for (const parallel::Layout& layout : layouts(mpi.size(), config.model)) {
    const fs::path next = to / fmt::format("again-{}", count);
    const std::string error = save_again(*world, stream, config, layout, from, next, count % 2 == 0);
    if (!error.empty()) throw IoError("{}: {}", layout.to_string(), error);
    from = checkpoint::find_latest(next).value();
    print(*world, from);
    ++count;
  }
  stream.set_progress_hook({});
}

int main_of(int argc, char** argv) {
  parallel::MpiEnvironment mpi;
  log::set_rank(mpi.rank(), mpi.size());
  try {
    if (argc != 4) throw ConfigError("usage: save_again_program red|dec FROM TO");
    const auto kind = std::string_view(argv[1]) == "red" ? model::Kind::red : model::Kind::dec;
    save_in_every_layout(mpi, kind, argv[2], argv[3]);
  } catch (...) {
    mpi.fail(std::current_exception());
  }
  return 0;
}

}  // namespace
}  // namespace red::test

int main(int argc, char** argv) {
  return red::test::main_of(argc, argv);
}
