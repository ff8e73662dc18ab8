#include "rehearse/utilization.h"

#include <gtest/gtest.h>

#include <vector>

namespace steelyard::rehearse {
namespace {

TEST(Utilization, TheFirstStepDoesNotCount) {
  const std::vector<Step> steps = {
      {Seconds(10), Seconds(1)}, {Seconds(0.25), Seconds(0.75)}, {Seconds(0.25), Seconds(0.75)}};
  EXPECT_DOUBLE_EQ(utilization(steps).value(), 0.75);
  EXPECT_DOUBLE_EQ(utilization(steps, 0).value(), 2.5 / 13);
}

// facts/data-path.md, section G, check 4: computing c and supplied every s reports c / max(c, s).
TEST(Utilization, IsComputingOverTheSlowerOfComputingAndSupply) {
  for (const double supply : {0.5, 1.0, 2.0, 4.0}) {
    const double computing = 1.0;
    const double wait = std::max(0.0, supply - computing);
    const std::vector<Step> steps(100, Step{Seconds(wait), Seconds(computing)});
    EXPECT_DOUBLE_EQ(utilization(steps).value(), computing / std::max(computing, supply));
  }
}

TEST(Utilization, OfNothingIsNothing) {
  EXPECT_EQ(utilization({}).value(), 0);
  const std::vector<Step> one = {{Seconds(0), Seconds(1)}};
  EXPECT_EQ(utilization(one).value(), 0);
}

}  // namespace
}  // namespace steelyard::rehearse
