// Both ways to switch stacks: this file is compiled with each.
#include "runtime/fiber.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace cuda_on_cpu {
namespace {

Fiber* main_fiber = nullptr;
Fiber* second_fiber = nullptr;
std::vector<int> visits;

TEST(Fiber, GoesOnWhereItStopped) {
  Fiber main;
  Fiber second([] {
    for (int i = 0;; ++i) {
      visits.push_back(i);
      main_fiber->switch_from(*second_fiber);
    }
  });
  main_fiber = &main;
  second_fiber = &second;
  for (int i = 0; i < 3; ++i) {
    visits.push_back(-1);
    second.switch_from(main);
  }
  EXPECT_EQ(visits, (std::vector<int>{-1, 0, -1, 1, -1, 2}));
  EXPECT_EQ(main.stack(), nullptr);
  EXPECT_NE(second.stack(), nullptr);
}

}  // namespace
}  // namespace cuda_on_cpu
