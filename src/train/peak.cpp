#include "train/peak.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <tuple>
#include <vector>

#include "device/backend.hpp"
#include "device/gpu_specs.hpp"
#include "train/machine.hpp"

namespace red::train {
namespace {

/// Ranks that compute on this rank's GPU, itself among them.
int sharers(parallel::Communicator& world, const GpuFacts& own) {
  std::vector<std::array<uint8_t, 16>> gpus(static_cast<std::size_t>(world.size()));
  gpus[static_cast<std::size_t>(world.rank())] = own.identity;
  const Tensor all =
      make_tensor(gpus.data()->data(), world.size(), static_cast<int64_t>(own.identity.size()));
  parallel::Request request = world.all_gather(all, all.row_range(world.rank(), 1));
  world.wait(request, "which GPU each rank has");
  return static_cast<int>(std::count(gpus.begin(), gpus.end(), own.identity));
}

/// Measured once in a process: whoever trains again in it, after a spike say, has the same machine.
double own_peak_gflops(Stream& stream, DType dtype) {
  static std::map<std::tuple<const GemmLibrary*, int, DType>, double> known;
  const auto [entry, is_new] = known.try_emplace({&stream.gemm(), stream.threads().num_threads(), dtype});
  if (is_new) entry->second = measured_peak_gflops(stream, dtype);
  return entry->second;
}

}  // namespace

Peak find_peak(parallel::Communicator& world, Stream& stream, DType dtype) {
  const auto gpu = gpu_facts();
  const GpuSpecs* specs = gpu ? find_gpu_specs(gpu->name) : nullptr;
  const double ranks_on_gpu = gpu ? sharers(world, *gpu) : 1;
  // Measured, stated, ranks of which nothing is stated.
  std::array<double, 3> sums = {
      own_peak_gflops(stream, dtype),
      specs != nullptr ? stated_gflops(*specs, dtype, stream.gemm().choice) / ranks_on_gpu : 0.0,
      specs != nullptr ? 0.0 : 1.0};
  parallel::Request request = world.all_reduce(make_tensor(sums.data(), static_cast<int64_t>(sums.size()), 1),
                                               parallel::ReduceOp::sum);
  world.wait(request, "peak of all ranks");
  Peak peak{
      .measured_gflops = sums[0], .stated_gflops = sums[2] == 0.0 ? sums[1] : 0.0, .why_not_stated = {}};
  if (gpu && sums[2] > 0.0)
    peak.why_not_stated = fmt::format(
        "no peak is stated of the GPUs of {} of {} ranks (this one's is {}; src/device/gpu_specs.cpp)",
        sums[2], world.size(), gpu->name);
  return peak;
}

}  // namespace red::train
