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
  facts::EfficiencyConstants constants;
  constants.step_overhead = Ratio(0.03);
  constants.rank_spread = Ratio(0.02);
  EXPECT_DOUBLE_EQ(stretch_of(constants, 1), 1.03);
  EXPECT_NEAR(stretch_of(constants, 8), 1.03 + 0.02 * 1.4236, 1e-4);
  EXPECT_GT(stretch_of(constants, 512), stretch_of(constants, 64));
}

}  // namespace
}  // namespace steelyard::pace
