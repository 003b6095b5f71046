// What an op computes must not depend on how many threads its stream has, nor on which of them runs what.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "device/stream.hpp"
#include "support/every_cpu_target.hpp"

namespace red::test {

/// compute(stream) returns the elements of several tensors; they must be the same, bit by bit, when run
/// again, and on a CPU with 1, 2 and 3 threads.
template <class Compute>
void expect_one_result(const Compute& compute) {
  for_every_cpu_target([&] {
    Stream one(1);
    const std::vector<std::vector<float>> expected = compute(one);
    for (const int num_threads : on_cpu() ? std::vector{1, 2, 2, 3, 3} : std::vector{1}) {
      Stream stream(num_threads);
      const std::vector<std::vector<float>> got = compute(stream);
      ASSERT_EQ(got.size(), expected.size());
      for (std::size_t i = 0; i < got.size(); ++i) {
        ASSERT_EQ(got[i].size(), expected[i].size());
        EXPECT_EQ(std::memcmp(got[i].data(), expected[i].data(), got[i].size() * sizeof(float)), 0)
            << "tensor " << i << ", " << num_threads << " threads";
      }
    }
  });
}

}  // namespace red::test
