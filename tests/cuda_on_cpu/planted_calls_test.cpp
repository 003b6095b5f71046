// Each mistake that host code can make with CUDA's runtime, planted: it must be caught, in the orders of
// streams in which it can be seen; and the right form must not be.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "child_run.hpp"
#include "planted_kernels.hpp"
#include "runtime/options.hpp"

namespace cuda_on_cpu {
namespace {

constexpr std::size_t kNumBytes = kPlantedThreads * sizeof(float);
constexpr StreamOrder kAllOrders[] = {StreamOrder::lazy, StreamOrder::random, StreamOrder::eager};

/// What host code works with; every call must succeed.
struct Host {
  Host() {
    EXPECT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    EXPECT_EQ(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), cudaSuccess);
    EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&device), kNumBytes), cudaSuccess);
    EXPECT_EQ(cudaMallocHost(reinterpret_cast<void**>(&pinned), kNumBytes), cudaSuccess);
    std::memset(pinned, 0, kNumBytes);
  }

  /// device[i] = 1 for all i, in stream order.
  void fill_with_ones() const {
    EXPECT_EQ(cudaMemsetAsync(device, 0, kNumBytes, stream), cudaSuccess);
    for (const PlantedBug& planted : planted_kernels()) {
      if (std::string_view(planted.name) == "early_exit") planted.launch(false, stream, device);
    }
  }
  bool to_pinned(cudaStream_t in) const {
    return cudaMemcpyAsync(pinned, device, kNumBytes, cudaMemcpyDeviceToHost, in) == cudaSuccess;
  }
  bool done() const {
    return cudaStreamSynchronize(stream) == cudaSuccess && cudaStreamSynchronize(other) == cudaSuccess;
  }

  cudaStream_t stream = nullptr, other = nullptr;
  float *device = nullptr, *pinned = nullptr;
};

ChildRun run_in(StreamOrder order, const std::function<bool(const Host&)>& body) {
  return run_in_child([&] {
    options().streams = order;
    return body(Host());
  });
}

/// The wrong form is caught in this order, with these words.
void expect_caught(StreamOrder order, const std::string& words,
                   const std::function<bool(const Host&)>& wrong) {
  const ChildRun child = run_in(order, wrong);
  EXPECT_TRUE(child.caught(words)) << "'" << words << "' is not in: " << child.output;
}

void expect_good(const std::function<bool(const Host&)>& right) {
  for (const StreamOrder order : kAllOrders) {
    const ChildRun child = run_in(order, right);
    EXPECT_TRUE(child.good) << child.output;
  }
}

TEST(PlantedCalls, ResultsAreReadBeforeTheStreamIsDone) {
  const auto read = [](bool wait) {
    return [wait](const Host& host) {
      host.fill_with_ones();
      if (!host.to_pinned(host.stream)) return false;
      if (wait && !host.done()) return false;
      return host.pinned[0] == 1.0F;
    };
  };
  expect_good(read(true));
  expect_caught(StreamOrder::lazy, "", read(false));
}

TEST(PlantedCalls, AStreamDoesNotWaitForAnother) {
  const auto read = [](bool wait) {
    return [wait](const Host& host) {
      cudaEvent_t event = nullptr;
      if (cudaEventCreateWithFlags(&event, cudaEventDisableTiming) != cudaSuccess) return false;
      host.fill_with_ones();
      if (cudaEventRecord(event, host.stream) != cudaSuccess) return false;
      if (wait && cudaStreamWaitEvent(host.other, event, 0) != cudaSuccess) return false;
      // An event may go while somebody still waits for it.
      if (cudaEventDestroy(event) != cudaSuccess || !host.to_pinned(host.other)) return false;
      return cudaStreamSynchronize(host.other) == cudaSuccess && host.pinned[0] == 1.0F;
    };
  };
  expect_good(read(true));
  expect_caught(StreamOrder::lazy, "", read(false));
}

TEST(PlantedCalls, PinnedMemoryIsWrittenAgainBeforeItsCopy) {
  const auto copy = [](bool wait) {
    return [wait](const Host& host) {
      host.pinned[0] = 1.0F;
      if (cudaMemcpyAsync(host.device, host.pinned, kNumBytes, cudaMemcpyHostToDevice, host.stream) !=
          cudaSuccess)
        return false;
      if (wait && !host.done()) return false;
      host.pinned[0] = 2.0F;
      float value = 0.0F;
      return cudaMemcpyAsync(&value, host.device, sizeof(value), cudaMemcpyDeviceToHost, host.stream) ==
                 cudaSuccess &&
             value == 1.0F;
    };
  };
  expect_good(copy(true));
  expect_caught(StreamOrder::lazy, "", copy(false));
}

TEST(PlantedCalls, TheHostTouchesDeviceMemory) {
  for (const StreamOrder order : kAllOrders) {
    expect_caught(order, "",
                  [](const Host& host) { return *static_cast<volatile float*>(host.device) != 7.0F; });
    expect_caught(order, "", [](const Host& host) {
      *static_cast<volatile float*>(host.device) = 1.0F;
      return true;
    });
  }
}

TEST(PlantedCalls, FreshMemoryIsNotZero) {
  expect_good([](const Host& host) {
    return host.to_pinned(host.stream) && host.done() && host.pinned[0] != host.pinned[0];
  });
}

TEST(PlantedCalls, TheDefaultStreamIsUsed) {
  expect_caught(StreamOrder::lazy, "default stream", [](const Host& host) {
    return cudaMemsetAsync(host.device, 0, kNumBytes, nullptr) == cudaSuccess;
  });
}

TEST(PlantedCalls, AStreamIsUsedAfterItsEnd) {
  expect_caught(StreamOrder::lazy, "does not exist", [](const Host& host) {
    return cudaStreamDestroy(host.other) == cudaSuccess && host.to_pinned(host.other);
  });
}

/// A call that returns an error: the child is told so, and nothing else is wrong.
void expect_refused(cudaError_t error, const std::function<cudaError_t(const Host&)>& call) {
  expect_good([&](const Host& host) {
    if (call(host) != error) return false;
    return cudaGetLastError() == error && cudaGetLastError() == cudaSuccess;
  });
}

TEST(PlantedCalls, CopiesTheWrongWayOrTooFar) {
  expect_refused(cudaErrorInvalidMemcpyDirection, [](const Host& host) {
    return cudaMemcpyAsync(host.device, host.pinned, kNumBytes, cudaMemcpyDeviceToHost, host.stream);
  });
  expect_refused(cudaErrorInvalidMemcpyDirection, [](const Host& host) {
    std::vector<float> pageable(kPlantedThreads);
    return cudaMemcpyAsync(host.pinned, pageable.data(), kNumBytes, cudaMemcpyDeviceToDevice, host.stream);
  });
  expect_refused(cudaErrorInvalidMemcpyDirection, [](const Host& host) {
    return cudaMemcpyAsync(host.device, host.pinned, kNumBytes, cudaMemcpyDefault, host.stream);
  });
  expect_refused(cudaErrorInvalidValue, [](const Host& host) {
    return cudaMemcpyAsync(host.device + 1, host.pinned, kNumBytes, cudaMemcpyHostToDevice, host.stream);
  });
  expect_refused(cudaErrorInvalidValue, [](const Host& host) {
    return cudaMemsetAsync(host.device, 0, kNumBytes + 1, host.stream);
  });
}

TEST(PlantedCalls, MemoryIsFreedTwiceOrNotOurs) {
  expect_refused(cudaErrorInvalidValue, [](const Host& host) {
    return cudaFree(host.device) == cudaSuccess ? cudaFree(host.device) : cudaSuccess;
  });
  expect_refused(cudaErrorInvalidValue, [](const Host& host) { return cudaFree(host.pinned); });
}

TEST(PlantedCalls, MoreMemoryThanThereIs) {
  expect_refused(cudaErrorMemoryAllocation, [](const Host&) {
    void* memory = nullptr;
    return cudaMalloc(&memory, options().memory_bytes);
  });
}

}  // namespace
}  // namespace cuda_on_cpu
