#include "pace/stretch.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace steelyard::pace {
namespace {

// Exact values: 1/sqrt(pi) of two, 3/(2 sqrt(pi)) of three; tables of normal order statistics.
TEST(Stretch, TheLargestOfSeveralDraws) {
  EXPECT_EQ(largest_of(1), 0.0);
  EXPECT_NEAR(largest_of(2), std::numbers::inv_sqrtpi, 1e-3);
  EXPECT_NEAR(largest_of(3), 1.5 * std::numbers::inv_sqrtpi, 1e-3);
  EXPECT_NEAR(largest_of(8), 1.4236, 1e-3);
  EXPECT_NEAR(largest_of(100), 2.5076, 1e-3);
  EXPECT_LT(largest_of(100'000), 4.5);
}

TEST(Stretch, MoreRanksWaitForASlowerOne) {
  constexpr Ratio kOverhead(0.03), kSpread(0.02);
  EXPECT_DOUBLE_EQ(stretch_of(kOverhead, kSpread, 1), 1.03);
  EXPECT_NEAR(stretch_of(kOverhead, kSpread, 8), 1.03 + 0.02 * 1.4236, 1e-4);
  EXPECT_GT(stretch_of(kOverhead, kSpread, 512), stretch_of(kOverhead, kSpread, 64));
}

}  // namespace
}  // namespace steelyard::pace
