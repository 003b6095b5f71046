#include "launch/ranks.hpp"

#include <fmt/ranges.h>

#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/watch.hpp"
#include "checkpoint/exchange.hpp"
#include "config/validate.hpp"
#include "device/backend.hpp"
#include "device/gemm_measuring.hpp"
#include "device/numa.hpp"
#include "launch/gpu_binding.hpp"
#include "launch/mpi_run.hpp"
#include "model/stage_parameters.hpp"
#include "ops/attention.hpp"
#include "parallel/device_communicator.hpp"
#include "parallel/star.hpp"
#include "train/machine.hpp"
#include "train/precision.hpp"

namespace red::launch {
namespace {

/// Ranks share the cores that they may both run on, whoever bound them: a launcher, a job's cgroup, their
/// GPUs. Collective.
int threads_of_share(parallel::Communicator& world) {
  std::vector<int> own = own_cores();
  if (own.empty()) own = parse_cpu_list(fmt::format("0-{}", std::thread::hardware_concurrency() - 1));
  const std::string host = parallel::host_name();
  std::istringstream lines(
      checkpoint::join_lines(world, fmt::format("{} {} {}\n", world.rank(), host, cpu_list_text(own))));
  std::vector<std::vector<int>> here;
  for (std::string rank, other, cores; lines >> rank >> other >> cores;) {
    if (other == host) here.push_back(parse_cpu_list(cores));
  }
  return share_of_cores(own, here);
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
  bind_near_gpu();
  // The matrix library is checked before MPI starts: a crash inside it must not look like a lost rank.
  if (config.train.deterministic) choose_without_measuring();
  const GemmChoice gemm = parse_gemm_choice(config.train.gemm);
  gemm_library(gemm);
  if (config.train.attention == AttentionChoice::cudnn && !ops::has_attention_library())
    throw ConfigError(
        "train.attention = cudnn: this program has no cuDNN; choose own, or redllm-cuda built where CMake "
        "finds "
        "cuDNN and its frontend (launch/cuda_sdk.sh fetches both)");
  std::optional<Stream> stream_of_rank;  // outlives what communicates for it
  parallel::MpiOptions options;
  options.deadline_s = config.train.timeout_s;
  options.shared_memory = config.transport.shared_memory;
  options.abort.watch = {config.train.timeout_s, config.train.io_timeout_s, watchdog_folder};
  return run_under_mpi(options, [&](parallel::MpiEnvironment& mpi) {
    require_backend(mpi.size());
    const int threads = config.train.threads > 0 ? config.train.threads : threads_of_share(mpi.world());
    Stream& stream = stream_of_rank.emplace(threads, 0, gemm);  // its scratch grows to what the engine plans
    stream.use_attention(config.train.attention);
    if (config.train.gemm == "auto") train::agree_on_gemm(mpi.world(), stream);
    const parallel::Layout chosen = layout(mpi.size());
    std::optional<watch::Activity> connecting(std::in_place, "connecting ranks");  // no rank may stay away
    const auto world = parallel::device_communicator(mpi, stream, config.transport);
    parallel::Mesh mesh(chosen, *world, model::layout_limits(config.model));
    connecting.reset();
    watch::set_process_place(place_of(mesh));
    const int code = body({mpi, *world, mesh, stream});
    stream.set_progress_hook({});
    return code;
  });
}

int run_synthetic_steps(config::Loaded loaded,
                        const std::function<int(const Ranks&, const config::RunConfig&)>& body) {
  config::RunConfig& config = loaded.config;
  if (config.train.global_batch == 0)
    config.train.global_batch = config.train.micro_batch * config.parallel.data;
  config::validate(loaded, config::kBenchUse);
  return run_on_ranks(
      config, [&](int) { return config.parallel; },
      [&](const Ranks& ranks) {
        config.train.precision =
            train::settle_precision(config.train.precision, std::nullopt, ranks.world, ranks.stream);
        return body(ranks, config);
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
