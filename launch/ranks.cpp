#include "launch/ranks.hpp"

#include <fmt/ranges.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/watch.hpp"
#include "device/backend.hpp"
#include "device/gemm_measuring.hpp"
#include "launch/gpu_binding.hpp"
#include "launch/mpi_run.hpp"
#include "model/stage_parameters.hpp"
#include "ops/attention.hpp"
#include "parallel/device_communicator.hpp"
#include "train/machine.hpp"

namespace red::launch {
namespace {

/// As the launcher announces it, so that threads can be chosen before MPI starts.
int ranks_on_this_host() {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_NTASKS_PER_NODE"}) {
    const char* text = std::getenv(name);
    int ranks = 0;
    if (text != nullptr && std::from_chars(text, text + std::strlen(text), ranks).ec == std::errc() &&
        ranks > 0) {
      return ranks;
    }
  }
  return 1;
}

/// "data 0, decoder stage 1": the axes that are more than one rank long.
std::string place_of(const parallel::Mesh& mesh) {
  const parallel::Layout& layout = mesh.layout();
  std::vector<std::string> parts;
  if (layout.data > 1) parts.push_back(fmt::format("data {}", mesh.at().data));
  if (layout.tensor > 1) parts.push_back(fmt::format("tensor {}", mesh.at().tensor));
  if (layout.num_stages() > 1) {
    const bool encoder = mesh.is_encoder_stage();
    parts.push_back(fmt::format("{} stage {}", encoder ? "encoder" : "decoder",
                                encoder ? mesh.at().stage : mesh.at().stage - layout.encoder_stages));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace

int run_on_ranks(const config::RunConfig& config, const std::function<parallel::Layout(int)>& layout,
                 const std::function<int(const Ranks&)>& body, const std::filesystem::path& watchdog_folder) {
  const watch::Thread watched("main thread");
  const int threads =
      config.train.threads > 0 ? config.train.threads : train::default_threads(ranks_on_this_host());
  bind_near_gpu();
  // The matrix library is checked before MPI starts: a crash inside it must not look like a lost rank.
  // Its scratch memory grows to what the engine plans.
  if (config.train.deterministic) choose_without_measuring();
  Stream stream(threads, 0, parse_gemm_choice(config.train.gemm));
  if (config.train.attention == AttentionChoice::cudnn && !ops::has_attention_library())
    throw ConfigError(
        "train.attention = cudnn: this program has no cuDNN; choose own, or redllm-cuda built where CMake "
        "finds "
        "cuDNN and its frontend (launch/cuda_sdk.sh fetches both)");
  stream.use_attention(config.train.attention);
  parallel::MpiOptions options;
  options.deadline_s = config.train.timeout_s;
  options.abort.watch = {config.train.timeout_s, config.train.io_timeout_s, watchdog_folder};
  return run_under_mpi(options, [&](parallel::MpiEnvironment& mpi) {
    require_backend(mpi.size());
    if (config.train.gemm == "auto") train::agree_on_gemm(mpi.world(), stream);
    const parallel::Layout chosen = layout(mpi.size());
    const auto world = parallel::device_communicator(mpi, stream, config.transport);
    parallel::Mesh mesh(chosen, *world, model::layout_limits(config.model));
    watch::set_process_place(place_of(mesh));
    const int code = body({mpi, *world, mesh, stream});
    stream.set_progress_hook({});
    return code;
  });
}

parallel::Layout layout_of_evaluation(const config::Loaded& loaded, int num_ranks) {
  for (const char* key : {"parallel.data", "parallel.tensor", "parallel.encoder_stages",
                          "parallel.decoder_stages", "parallel.sequence_parallel"}) {
    if (loaded.origin(key) == "command line") return loaded.config.parallel;
  }
  return {num_ranks, 1, 0, 1, false};
}

}  // namespace red::launch
