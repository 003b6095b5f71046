// Runs a test's body once per set of vector instructions that the ops were compiled for and this machine has;
// once on other backends than the CPU's.
#pragma once

#include <gtest/gtest.h>
#include <hwy/highway.h>

#include "support/backend.hpp"

namespace red::test {

template <class Body>
void for_every_cpu_target(const Body& body) {
  if (!on_cpu()) return body();
  for (int64_t targets = hwy::SupportedTargets() & HWY_TARGETS; targets != 0; targets &= targets - 1) {
    const int64_t target = targets & -targets;
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace red::test
