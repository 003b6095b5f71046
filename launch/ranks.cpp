#include "launch/ranks.hpp"

#include <charconv>
#include <cstdlib>
#include <cstring>

#include "device/backend.hpp"
#include "launch/mpi_run.hpp"
#include "model/stage_parameters.hpp"
#include "ops/attention.hpp"
#include "parallel/staged_communicator.hpp"
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

}  // namespace

int run_on_ranks(const config::RunConfig& config, const std::function<parallel::Layout(int)>& layout,
                 const std::function<int(const Ranks&)>& body) {
  const int threads =
      config.train.threads > 0 ? config.train.threads : train::default_threads(ranks_on_this_host());
  // The matrix library is checked before MPI starts: a crash inside it must not look like a lost rank.
  // Its scratch memory grows to what the engine plans.
  Stream stream(threads, 0, parse_gemm_choice(config.train.gemm));
  if (config.train.attention == AttentionChoice::cudnn && !ops::has_attention_library())
    throw ConfigError(
        "train.attention = cudnn: this program has no cuDNN; choose own, or redllm-cuda built where CMake "
        "finds "
        "cuDNN and its frontend (launch/cuda_sdk.sh fetches both)");
  stream.use_attention(config.train.attention);
  parallel::MpiOptions options;
  options.deadline_s = config.train.timeout_s;
  return run_under_mpi(options, [&](parallel::MpiEnvironment& mpi) {
    require_backend(mpi.size());
    if (config.train.gemm == "auto") train::agree_on_gemm(mpi.world(), stream);
    const parallel::Layout chosen = layout(mpi.size());
    parallel::StagedCommunicator world(mpi.world(), stream);
    parallel::Mesh mesh(chosen, world, model::layout_limits(config.model));
    const int code = body({world, mesh, stream});
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
