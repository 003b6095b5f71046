// Memory, streams and copies of the CUDA backend, against the fakes (docs/cuda.md).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "device/stream_backend_cuda.hpp"
#include "runtime/options.hpp"

namespace red {
namespace {

using cuda_on_cpu::options;

std::vector<unsigned char> numbered_bytes(std::size_t count) {
  std::vector<unsigned char> bytes(count);
  std::iota(bytes.begin(), bytes.end(), static_cast<unsigned char>(1));
  return bytes;
}

std::vector<unsigned char> read(Stream& stream, const Buffer& buffer) {
  std::vector<unsigned char> bytes(buffer.num_bytes());
  copy_to_host(stream, bytes.data(), buffer.data(), bytes.size());
  stream.synchronize();
  return bytes;
}

TEST(CudaBackend, LoadsKernelsAtStart) {
  // Of the test programs none sets it, and this test is the first: nothing has called CUDA yet.
  EXPECT_STREQ(std::getenv("CUDA_MODULE_LOADING"), "EAGER");
}

TEST(CudaBuffer, IsZeroedAndAligned) {
  Stream stream(1);
  for (const std::size_t num_bytes : {1, 255, 4096, 100001}) {
    const Buffer buffer(num_bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 256, 0);
    EXPECT_EQ(read(stream, buffer), std::vector<unsigned char>(num_bytes, 0));
  }
}

TEST(CudaBuffer, CountedOrEmptyTakesNothing) {
  const std::size_t before = num_buffers_made();
  EXPECT_EQ(Buffer(std::size_t{1} << 50, Memory::counted).data(), nullptr);
  EXPECT_EQ(Buffer(0).data(), nullptr);
  EXPECT_EQ(num_buffers_made(), before);
  const Buffer real(8);
  EXPECT_EQ(num_buffers_made(), before + 1);
}

TEST(CudaBuffer, SaysHowMuchThereIsWhenThereIsTooLittle) {
  try {
    const Buffer buffer(options().memory_bytes + 1);
    FAIL() << "more than there is";
  } catch (const IoError& error) {
    EXPECT_NE(std::string(error.what()).find("cannot allocate 8192.0 MiB of GPU memory"), std::string::npos)
        << error.what();
  }
  const Buffer after(16);  // nothing is left of the error
  EXPECT_NE(after.data(), nullptr);
}

TEST(CudaStream, CopiesAnyNumberOfBytes) {
  Stream stream(1);
  for (const std::size_t count :
       {std::size_t{0}, std::size_t{1}, std::size_t{100003}, std::size_t{5} << 20}) {
    const Buffer buffer(count + 1);
    const auto bytes = numbered_bytes(count);
    copy_to_device(stream, buffer.data(), bytes.data(), count);
    auto expected = bytes;
    expected.push_back(0);
    EXPECT_EQ(read(stream, buffer), expected) << count;
  }
}

TEST(CudaStream, HostMemoryIsFreeAfterACopy) {
  Stream stream(1);
  const Buffer buffer(64);
  // More copies than pieces of pinned memory, none of them waited for.
  for (int i = 0; i < 40; ++i) {
    std::vector<unsigned char> bytes(64, static_cast<unsigned char>(i));
    copy_to_device(stream, buffer.data(), bytes.data(), bytes.size());
    std::fill(bytes.begin(), bytes.end(), 0xEE);
  }
  EXPECT_EQ(read(stream, buffer), std::vector<unsigned char>(64, 39));
}

// More pieces than there are: the host waits for those behind the eighth, and looks for lost ranks each time.
TEST(CudaStream, ALargeCopyLooksForLostRanksBeforeEachPieceThatIsStillRead) {
  constexpr std::size_t pieces = 20, piece = std::size_t{256} << 10;
  const auto bytes = numbered_bytes(pieces * piece);
  const Buffer buffer(bytes.size());
  Stream stream(1);
  const bool lazy = options().streams == cuda_on_cpu::StreamOrder::lazy;
  int waits = 0;
  stream.backend().wait_for_ranks = [&](const std::function<bool()>& done) {
    if (++waits == 5 && lazy) throw DataError("a rank is lost");
    while (!done()) {
    }
  };
  const auto copy = [&] { copy_to_device(stream, buffer.data(), bytes.data(), bytes.size()); };
  if (lazy) {
    EXPECT_THROW(copy(), DataError);
    EXPECT_EQ(waits, 5);
  }
  copy();
  stream.backend().wait_for_ranks = {};
  EXPECT_EQ(read(stream, buffer), bytes);
}

// CUDA would wait inside the copy, where nobody looks.
TEST(CudaStream, ACopyToMemoryThatIsNotPinnedLooksForLostRanksFirst) {
  Stream stream(1);
  const Buffer device(100);
  const HostBuffer pinned(100);
  std::vector<unsigned char> pageable(100);
  int waits = 0;
  stream.backend().wait_for_ranks = [&](const std::function<bool()>&) { ++waits; };
  copy_to_host(stream, pinned.data() + 50, device.data(), 50);
  EXPECT_EQ(waits, 0);
  copy_to_host(stream, pageable.data() + 50, device.data(), 50);
  EXPECT_EQ(waits, 1);
  stream.backend().wait_for_ranks = [](const std::function<bool()>&) { throw DataError("a rank is lost"); };
  EXPECT_THROW(copy_to_host(stream, pageable.data(), device.data(), 50), DataError);
  stream.backend().wait_for_ranks = {};
}

TEST(CudaStream, CopiesAndFillsWithinTheDevice) {
  Stream stream(1);
  const Buffer from(1000), to(1000);
  const auto bytes = numbered_bytes(1000);
  copy_to_device(stream, from.data(), bytes.data(), bytes.size());
  copy_on_device(stream, to.data(), from.data(), bytes.size());
  fill_zero(stream, to.data() + 10, 20);
  auto expected = bytes;
  std::fill_n(expected.begin() + 10, 20, static_cast<unsigned char>(0));
  EXPECT_EQ(read(stream, to), expected);
}

TEST(CudaHostBuffer, IsTheHostsAndCopiedWithoutAWait) {
  Stream stream(1);
  const HostBuffer host(1000);
  EXPECT_TRUE(std::all_of(host.data(), host.data() + 1000, [](std::byte b) { return b == std::byte{0}; }));
  const Buffer device(1000);
  fill_zero(stream, device.data(), 1000);
  std::fill_n(host.data(), 1000, std::byte{7});
  copy_to_host(stream, host.data(), device.data(), 1000);
  if (options().streams == cuda_on_cpu::StreamOrder::lazy) {
    EXPECT_EQ(host.data()[0], std::byte{7});
  }
  stream.synchronize();
  EXPECT_EQ(host.data()[0], std::byte{0});
}

TEST(CudaBackend, KnowsWhoseMemoryAnAddressIsOf) {
  const Buffer device(100);
  const HostBuffer pinned(100);
  const int plain = 0;
  EXPECT_TRUE(on_device(device.data()));
  EXPECT_TRUE(on_device(device.data() + 99));
  EXPECT_FALSE(on_device(pinned.data()));
  EXPECT_FALSE(on_device(&plain));
  EXPECT_FALSE(on_device(nullptr));
}

TEST(CudaGemmLibrary, HasNamesOfItsOwn) {
  EXPECT_EQ(parse_gemm_choice("auto"), GemmChoice::automatic);
  EXPECT_EQ(parse_gemm_choice("tf32"), GemmChoice::tf32);
  for (const char* other : {"openblas", "onednn", "plain"})
    EXPECT_THROW(parse_gemm_choice(other), ConfigError);
  EXPECT_NE(gemm_library().description.find("cuBLASLt 13."), std::string::npos) << gemm_library().description;
  EXPECT_NE(gemm_library(GemmChoice::tf32).description.find("TF32"), std::string::npos);
}

}  // namespace
}  // namespace red
