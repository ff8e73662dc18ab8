#include "probe/spread.h"

#include <gtest/gtest.h>

#include <vector>

namespace steelyard::probe {
namespace {

TEST(Spread, IsTheMiddleAndTheEnds) {
  const std::vector<double> odd = {9, 10, 12};
  EXPECT_EQ(spread_of(odd).median, 10);
  EXPECT_EQ(spread_of(odd).low, 9);
  EXPECT_EQ(spread_of(odd).high, 12);
  EXPECT_EQ(spread_of(odd).runs, 3);
  EXPECT_DOUBLE_EQ(spread_of(odd).relative().value(), 0.3);
  const std::vector<double> even = {4, 1, 3, 2};
  EXPECT_EQ(spread_of(even).median, 2.5);
}

TEST(Spread, OfNothingIsNothing) {
  EXPECT_EQ(spread_of({}).runs, 0);
  EXPECT_EQ(spread_of({}).relative().value(), 0);
}

}  // namespace
}  // namespace steelyard::probe
