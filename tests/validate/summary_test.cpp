#include "validate/summary.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace steelyard::validate {
namespace {

TEST(Summary, MedianOfOddAndEvenNumbers) {
  EXPECT_DOUBLE_EQ(median({3.0, 1.0, 2.0}), 2.0);
  EXPECT_DOUBLE_EQ(median({4.0, 1.0, 2.0, 3.0}), 2.5);
  EXPECT_DOUBLE_EQ(median({7.0}), 7.0);
}

// Nearest rank: of 10 values the 9th (90 % are not above it); of 11 the 10th (9.9 rounded up); of 5
// the 5th (4.5 rounded up).
TEST(Summary, NinetiethPercentileIsTheNearestRank) {
  EXPECT_DOUBLE_EQ(percentile({10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, 90.0), 9.0);
  EXPECT_DOUBLE_EQ(percentile({11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, 90.0), 10.0);
  EXPECT_DOUBLE_EQ(percentile({1, 2, 3, 4, 5}, 90.0), 5.0);
  EXPECT_DOUBLE_EQ(percentile({1, 2, 3, 4, 5}, 100.0), 5.0);
  EXPECT_DOUBLE_EQ(percentile({1, 2, 3, 4, 5}, 1.0), 1.0);
}

// The definition itself, for many lengths: the smallest of the values that are enough.
TEST(Summary, AtLeastNineTenthsAreNotAboveTheNinetiethPercentile) {
  std::mt19937_64 random(7);
  for (std::size_t count = 1; count < 200; ++count) {
    std::vector<double> values(count);
    for (double& value : values) value = static_cast<double>(random() % 1000);
    const double p90 = percentile(values, 90.0);
    const auto not_above =
        std::count_if(values.begin(), values.end(), [&](double value) { return value <= p90; });
    const auto below =
        std::count_if(values.begin(), values.end(), [&](double value) { return value < p90; });
    EXPECT_GE(10 * not_above, 9 * static_cast<std::ptrdiff_t>(count));
    EXPECT_LT(10 * below, 9 * static_cast<std::ptrdiff_t>(count));
  }
}

facts::Comparison comparison(const char* source, facts::QuantityGroup group, const char* confidence,
                             double error) {
  facts::Comparison one;
  one.source = source;
  one.group = group;
  one.confidence = confidence;
  one.error = Ratio(error);
  return one;
}

TEST(Summary, RowsBySourceGroupAndConfidence) {
  using facts::QuantityGroup;
  const std::vector<facts::Comparison> comparisons = {
      comparison("a", QuantityGroup::vram, "high", -0.10),
      comparison("b", QuantityGroup::vram, "high", 0.50),
      comparison("a", QuantityGroup::vram, "high", 0.02),
      comparison("a", QuantityGroup::pace, "high", 0.30),
      comparison("a", QuantityGroup::vram, "low", 0.40),
      comparison("a", QuantityGroup::vram, "high", -0.04),
  };
  const auto rows = summarize(comparisons);
  ASSERT_EQ(rows.size(), 4U);
  EXPECT_EQ(rows[0].source, "a");
  EXPECT_EQ(rows[0].group, QuantityGroup::vram);
  EXPECT_EQ(rows[0].confidence, "high");
  EXPECT_EQ(rows[0].cases, 3);
  EXPECT_DOUBLE_EQ(rows[0].median_absolute_error.value(), 0.04);
  EXPECT_DOUBLE_EQ(rows[0].p90_absolute_error.value(), 0.10);
  EXPECT_DOUBLE_EQ(rows[0].bias.value(), -0.04);
  const auto overall = summarize_overall(comparisons);
  ASSERT_EQ(overall.size(), 2U);
  EXPECT_EQ(overall[0].source, "");
  EXPECT_EQ(overall[0].confidence, "");
  EXPECT_EQ(overall[0].cases, 5);
  EXPECT_DOUBLE_EQ(overall[0].median_absolute_error.value(), 0.10);
  EXPECT_DOUBLE_EQ(overall[0].bias.value(), 0.02);
  EXPECT_EQ(overall[1].group, QuantityGroup::pace);
  EXPECT_EQ(overall[1].cases, 1);
}

}  // namespace
}  // namespace steelyard::validate
