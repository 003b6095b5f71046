// Each bug that is planted in a kernel must be caught by the checks that are meant for it, in the orders of
// threads in which they can see it, and the same kernel without the bug by none. FLAVOUR: which checks this
// program has.
#include "planted_kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "child_run.hpp"
#include "runtime/flavour.hpp"
#include "runtime/options.hpp"

namespace cuda_on_cpu {
namespace {

constexpr std::pair<ThreadOrder, const char*> kOrders[] = {
    {ThreadOrder::natural, "natural"}, {ThreadOrder::reversed, "reversed"}, {ThreadOrder::warp, "warp"}};

/// In a process of its own: whether the results are right.
bool run(const PlantedBug& planted, bool bug, ThreadOrder order) {
  options().threads = order;
  cudaStream_t stream = nullptr;
  void* memory = nullptr;
  std::vector<float> results(kPlantedThreads);
  const std::size_t num_bytes = results.size() * sizeof(float);
  if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess) return false;
  if (cudaMalloc(&memory, num_bytes) != cudaSuccess) return false;
  if (cudaMemsetAsync(memory, 0, num_bytes, stream) != cudaSuccess) return false;
  planted.launch(bug, stream, static_cast<float*>(memory));
  if (cudaMemcpyAsync(results.data(), memory, num_bytes, cudaMemcpyDeviceToHost, stream) != cudaSuccess)
    return false;
  if (cudaStreamSynchronize(stream) != cudaSuccess) return false;
  for (int i = 0; i < kPlantedThreads; ++i) {
    const float expected = planted.expected(i);
    if (!std::isnan(expected) && results[static_cast<std::size_t>(i)] != expected) return false;
  }
  return true;
}

/// What must catch a bug: in which flavour, in which orders ("" for all), with which words.
struct Catch {
  std::string_view flavour, order;
  std::string words;
};

// Mistakes of barriers and masks are the scheduler's to catch, in every flavour.
const std::vector<Catch> kStuckBarrier = {{"", "", "never reach a barrier"}};
const std::multimap<std::string, std::vector<Catch>> kCatches = {
    {"two_sums", {{"race", "", "race: "}, {"plain", "warp", ""}}},
    {"no_barrier",
     {{"race", "", "race: a read"},
      {"plain", "natural", ""},
      {"plain", "reversed", ""},
      {"plain", "warp", ""}}},
    {"no_warp_barrier", {{"race", "", "race: a read"}, {"plain", "natural", ""}, {"plain", "reversed", ""}}},
    {"write_after_reads", {{"race", "", "race: "}, {"plain", "natural", ""}}},
    {"two_barriers", {{"", "", "wait at different barriers"}}},
    {"early_exit", kStuckBarrier},
    {"absent_lanes", {{"", "", "lanes of mask 0xffffffff that never arrive"}}},
    {"source_outside_mask", {{"", "", "is not in mask 0xffff"}}},
    {"lane_not_in_mask", {{"", "", "does not name it"}}},
    {"lanes_disagree", {{"", "", "exchange values at different places"}}},
    {"static_overrun", {{"asan", "", "insufficient space"}}},
    {"dynamic_overrun", {{"asan", "", "AddressSanitizer"}}},
    {"global_overrun", {{"asan", "", "AddressSanitizer"}}},
    {"misaligned", {{"asan", "", "misaligned address"}}},
    {"unwritten_shared", {{"race", "", "has not written"}, {"plain", "", ""}}},
    {"blocks_share", {{"race", "", "race: global memory that another block writes"}}},
    {"reads_of_another_block", {{"race", "", "another block"}}},
};

TEST(PlantedKernels, NothingIsCaughtWithoutBug) {
  for (const PlantedBug& planted : planted_kernels()) {
    for (const auto& [order, name] : kOrders) {
      const ChildRun child = run_in_child([&, o = order] { return run(planted, false, o); });
      EXPECT_TRUE(child.good) << planted.name << ", " << name << ": " << child.output;
    }
  }
}

TEST(PlantedKernels, EachBugIsCaughtByItsChecks) {
  for (const PlantedBug& planted : planted_kernels()) {
    const auto found = kCatches.find(planted.name);
    ASSERT_NE(found, kCatches.end()) << planted.name;
    for (const auto& [order, name] : kOrders) {
      const ChildRun child = run_in_child([&, o = order] { return run(planted, true, o); });
      std::cout << planted.name << ", " << name << ": " << (child.good ? "not caught" : "caught") << "\n";
      for (const Catch& expected : found->second) {
        if (!expected.flavour.empty() && expected.flavour != flavour()) continue;
        if (!expected.order.empty() && expected.order != name) continue;
        EXPECT_TRUE(child.caught(expected.words))
            << planted.name << ", " << name << ", '" << expected.words << "': " << child.output;
      }
    }
  }
}

TEST(PlantedKernels, EachBugIsCaughtBySomething) {
  for (const auto& [name, catches] : kCatches) EXPECT_FALSE(catches.empty()) << name;
  EXPECT_EQ(kCatches.size(), planted_kernels().size());
}

}  // namespace
}  // namespace cuda_on_cpu
