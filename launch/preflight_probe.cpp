#include "launch/preflight_probe.hpp"

#include <fcntl.h>
#include <mpi.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/crc32c.hpp"
#include "checkpoint/exchange.hpp"
#include "checkpoint/h5.hpp"
#include "device/backend.hpp"
#include "device/numa.hpp"
#include "launch/free_memory.hpp"
#include "ops/attention_library.hpp"
#include "parallel/clock_offset.hpp"
#include "parallel/device_communicator.hpp"
#include "parallel/star.hpp"
#include "train/machine.hpp"

namespace red::launch {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double wall_clock() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// As Slurm calls it, so that a job can be told to leave it out.
std::string node_name() {
  const char* slurm = std::getenv("SLURMD_NODENAME");
  return slurm != nullptr && *slurm != 0 ? slurm : parallel::host_name();
}

/// The value behind "key ... :" of a file in /proc.
std::string proc_value(const char* path, std::string_view key) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(key)) continue;
    const std::size_t begin = line.find_first_not_of(" \t", line.find(':') + 1);
    return begin == std::string::npos ? std::string() : line.substr(begin);
  }
  return {};
}

std::string digest_of_program() {
  std::ifstream in("/proc/self/exe", std::ios::binary);
  std::vector<char> buffer(std::size_t{1} << 20);
  uint32_t crc = 0;
  while (in.read(buffer.data(), static_cast<std::streamsize>(buffer.size())) || in.gcount() > 0)
    crc = extend_crc32c(crc, buffer.data(), static_cast<std::size_t>(in.gcount()));
  return fmt::format("{} (CRC-32C {:08x})", RED_VERSION, crc);
}

std::string mpi_version() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  const std::string all(text.data(), static_cast<std::size_t>(length));
  return all.substr(0, all.find(','));
}

std::string kind_of_device() {
  const std::string text = device_description();  // "GPU 2 of 4, NVIDIA ..."
  const std::size_t comma = text.find(", ");
  return comma == std::string::npos ? text : text.substr(comma + 2);
}

/// Writes a MiB into the run's folder and takes it away again; what went wrong.
std::string try_to_write(const fs::path& run_dir, int rank) {
  const fs::path path = run_dir / fmt::format("preflight-{}.tmp", rank);
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file < 0) return fmt::format("{}: cannot be made: {}", path.string(), std::strerror(errno));
  const std::string bytes(std::size_t{1} << 20, 'x');
  const ssize_t written = ::write(file, bytes.data(), bytes.size());
  const bool all = written == static_cast<ssize_t>(bytes.size());
  const int reason = all && ::fsync(file) == 0 ? 0 : (written >= 0 && !all ? ENOSPC : errno);
  ::close(file);
  ::unlink(path.c_str());
  return reason == 0 ? std::string()
                     : fmt::format("{}: cannot be written: {}", path.string(), std::strerror(reason));
}

/// Rank 0 makes the folder; one rank of each node tries it.
void look_at_disk(const fs::path& run_dir, bool first_of_node, RankReport& report) {
  struct statvfs status {};
  if (::statvfs(run_dir.c_str(), &status) != 0) {
    if (first_of_node)
      report.disk_error = fmt::format("{}: cannot be seen: {}", run_dir.string(), std::strerror(errno));
    return;
  }
  report.disk_free = static_cast<uint64_t>(status.f_bavail) * status.f_frsize;
  if (first_of_node) report.disk_error = try_to_write(run_dir, report.rank);
}

/// GB/s of the best of a few all-reduces of x, which is in device memory, by the slowest rank.
double all_reduce_rate(parallel::Communicator& group, Stream& stream, const Tensor& x) {
  constexpr int times = 4;  // the first one warms up
  double best = 0.0;
  for (int i = 0; i < times; ++i) {
    parallel::Request start = group.barrier();
    group.wait(start, "preflight: start of an all-reduce");
    const auto begin = Clock::now();
    parallel::Request request = group.all_reduce(x, parallel::ReduceOp::max);
    group.wait(request, "preflight: an all-reduce");
    stream.synchronize();  // over NCCL the stream alone waited
    double rate = static_cast<double>(x.size() * size_of(x.dtype)) / seconds_since(begin) / 1e9;
    parallel::Request slowest = group.all_reduce(make_tensor(&rate, 1, 1), parallel::ReduceOp::min);
    group.wait(slowest, "preflight: the slowest rank");
    if (i > 0) best = std::max(best, rate);
  }
  return best;
}

/// Within each node; then over nodes 0 and 1, 2 and 3, ...; then over 1 and 2, 3 and 4, ...: as training
/// exchanges what ops work on.
void measure_messages(const Ranks& ranks, const std::vector<int>& node_of_rank, int64_t mib,
                      RankReport& report) {
  parallel::Communicator& world = ranks.world;
  Arena arena("preflight", static_cast<std::size_t>(mib) << 20);
  const Tensor x = arena.allocate(mib << 18, 1);
  const int node = node_of_rank[world.rank()];
  const int num_nodes = *std::max_element(node_of_rank.begin(), node_of_rank.end()) + 1;
  const auto own = world.split(node, world.rank(), "node");
  if (own->size() > 1) report.local_gb_s = all_reduce_rate(*own, ranks.stream, x);
  for (const int first : {0, 1}) {
    const int pair = (node + first) / 2;
    const int begin = 2 * pair - first;
    const bool whole = begin >= 0 && begin + 1 < num_nodes;
    const auto both = world.split(whole ? pair : num_nodes, world.rank(), "pair of nodes");
    if (!whole) continue;
    const double rate = all_reduce_rate(*both, ranks.stream, x);
    if (node == begin) report.next_gb_s = rate;
  }
}

void measure_products(Stream& stream, const ProbeOptions& options, RankReport& report) {
  constexpr int64_t small = 768, large = 8192;  // what keeps a core busy, and a GPU
  if (!report.gpu) {
    report.gemm_gflops = train::sustained_gflops(stream, options.dtype, small, options.gemm_s, {});
    return;
  }
  const GpuSensors sensors(report.gpu->pci_address);
  report.gpu->no_sensors = sensors.absent();
  report.gpu->driver = sensors.driver();
  if (!sensors.driver().empty()) report.versions["the GPU's driver"] = sensors.driver();
  constexpr double of_a_gpu = 100.0;  // GFLOP/s, which the harness on the CPU has not
  const bool fast = train::sustained_gflops(stream, options.dtype, small, 0.01, {}) > of_a_gpu;
  // An idle GPU is neither hot nor slowed.
  report.gemm_gflops =
      train::sustained_gflops(stream, options.dtype, fast ? large : small, options.gemm_s, [&] {
        if (const auto state = sensors.read()) report.gpu->state = *state;
      });
}

/// Whether every rank's GPU has the memory that its plan asks for: where one has not, that is what is wrong,
/// and nothing is measured on it. Collective.
bool have_room(parallel::Communicator& world, const RankReport& report) {
  double lacks = report.gpu && report.gpu->memory_free < report.gpu->memory_needed ? 1.0 : 0.0;
  parallel::Request request = world.all_reduce(make_tensor(&lacks, 1, 1), parallel::ReduceOp::max);
  world.wait(request, "preflight: whether GPUs have room");
  return lacks == 0.0;
}

std::vector<std::string> nodes_by_rank(parallel::Communicator& world, const std::string& own) {
  std::vector<std::string> nodes(world.size());
  std::istringstream lines(checkpoint::join_lines(world, fmt::format("{} {}\n", world.rank(), own)));
  int rank = 0;
  std::string node;
  while (lines >> rank >> node) nodes.at(static_cast<std::size_t>(rank)) = node;
  return nodes;
}

}  // namespace

std::vector<RankReport> probe(const Ranks& ranks, const train::MemoryPlan& plan,
                              const ProbeOptions& options) {
  parallel::Communicator& world = ranks.world;
  RankReport report;
  report.rank = world.rank();
  report.node = node_name();
  const std::vector<std::string> nodes = nodes_by_rank(world, report.node);
  const auto first_rank = std::find(nodes.begin(), nodes.end(), report.node) - nodes.begin();
  const bool first_of_node = first_rank == world.rank();
  report.cores = own_cores();
  report.num_cores_of_host = static_cast<int>(std::thread::hardware_concurrency());
  if (const NumaCores numa = numa_cores(); numa.size() > 1)
    report.numa_nodes = numa_nodes_of(report.cores, numa);
  report.threads = ranks.stream.threads().num_threads();
  report.versions = {{"MPI", mpi_version()},
                     {"HDF5", checkpoint::h5::library_version()},
                     {"the library of matrix products", ranks.stream.gemm().description},
                     {"the device", kind_of_device()}};
  report.versions.merge(backend_versions());
  for (const auto& [name, version] : {std::pair("NCCL", parallel::device_communicator_version()),
                                      std::pair("cuDNN", ops::attention_library_version())})
    if (!version.empty()) report.versions[name] = version;
  if (first_of_node) report.versions["the program"] = digest_of_program();
  report.processor = proc_value("/proc/cpuinfo", "model name");
  report.memory_free = free_memory();
  const train::MemoryUse& memory = plan.ranks[world.rank()].memory;
  report.gpu = look_at_gpu(report.cores);
  report.memory_needed = report.gpu ? memory.checkpoint_copy : memory.total();
  if (report.gpu) report.gpu->memory_needed = memory.total() - memory.checkpoint_copy;
  std::error_code ignored;  // look_at_disk() tells
  if (world.rank() == 0) fs::create_directories(options.run_dir, ignored);
  parallel::Request made = world.barrier();
  world.wait(made, "preflight: the run's folder");
  look_at_disk(options.run_dir, first_of_node, report);
  if (have_room(world, report)) {
    measure_products(ranks.stream, options, report);
    measure_messages(ranks, node_indices(nodes), options.mib, report);
  }
  const parallel::ClockOffset clock = parallel::clock_offset(world, wall_clock);
  report.clock_s = clock.seconds;
  report.clock_uncertainty_s = clock.uncertainty_s;
  return reports_from(checkpoint::join_lines(world, to_json(report) + "\n"));
}

}  // namespace red::launch
