// The vectorised exp of softmax and sigmoid, for every CPU target.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/exp_test.cpp"
#include <hwy/foreach_target.h>  // compiles this file again for each target

#include "ops/exp-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {
namespace {

void exp_of_all(float* values, int64_t n) {
  for_each_vector(n, [&](auto access, int64_t i) HWY_ATTR {
    access.store(exp_of(access.load(FloatTag(), values + i)), FloatTag(), values + i);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "support/every_cpu_target.hpp"

namespace red::ops {
namespace {

HWY_EXPORT(exp_of_all);

TEST(Exp, IsGoodToOneAndAHalfUnits) {
  std::vector<float> x;
  for (float v = -87.3F; v < 1.0F; v += 0.00037F) x.push_back(v);
  for (float v = 1e-30F; v < 0.5F; v *= 1.7F) x.insert(x.end(), {v, -v});
  test::for_every_cpu_target([&] {
    std::vector<float> y = x;
    HWY_DYNAMIC_DISPATCH(exp_of_all)(y.data(), static_cast<int64_t>(y.size()));
    double worst = 0.0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double exact = std::exp(static_cast<double>(x[i]));
      const int exponent = std::ilogb(exact);
      worst = std::max(worst, std::abs(y[i] - exact) / std::ldexp(1.0, exponent - 23));
    }
    EXPECT_LE(worst, 1.5) << "units in the last place";
  });
}

TEST(Exp, Ends) {
  test::for_every_cpu_target([] {
    constexpr float inf = std::numeric_limits<float>::infinity();
    std::vector<float> y = {0.0F, -0.0F, -87.4F, -1000.0F, -1e30F, -inf, NAN};
    HWY_DYNAMIC_DISPATCH(exp_of_all)(y.data(), static_cast<int64_t>(y.size()));
    EXPECT_EQ(y[0], 1.0F);
    EXPECT_EQ(y[1], 1.0F);
    for (int i = 2; i < 6; ++i) EXPECT_EQ(y[i], 0.0F) << i;
    EXPECT_TRUE(std::isnan(y[6]));
  });
}

}  // namespace
}  // namespace red::ops
#endif  // HWY_ONCE
