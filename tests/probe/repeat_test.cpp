#include "probe/repeat.h"

#include <gtest/gtest.h>

namespace steelyard::probe {
namespace {

// A clock that each run moves on by a second.
struct Bench {
  double now = 100;
  std::vector<double> results;
  std::size_t at = 0;

  std::vector<double> repeat_with(const Repetition& repetition) {
    return repeat(
        [this]() -> std::optional<double> {
          now += 1;
          if (at >= results.size()) return std::nullopt;
          return results[at++];
        },
        repetition, [this] { return now; });
  }
};

TEST(Repeat, EndsWhenItsTimeIsUsed) {
  Bench bench{.results = {1, 9, 2, 8, 3, 7, 4, 6}};
  // Runs of a second in 4.5 seconds: a fifth would end late.
  EXPECT_EQ(bench.repeat_with({.budget = Seconds(4.5)}).size(), 4U);
}

TEST(Repeat, TakesTheLeastUnlessThatIsFarTooLong) {
  Bench bench{.results = {1, 9, 2, 8}};
  EXPECT_EQ(bench.repeat_with({.budget = Seconds(1.5)}).size(), 3U);
  Bench slow{.results = {1, 9, 2, 8}};
  EXPECT_EQ(slow.repeat_with({.budget = Seconds(0.4)}).size(), 1U);
}

TEST(Repeat, EndsWhenTheRunsAreClose) {
  Bench bench{.results = std::vector<double>(30, 5.0)};
  EXPECT_EQ(bench.repeat_with({.budget = Seconds(100)}).size(), 5U);
}

TEST(Repeat, ARunWithoutAResultEndsIt) {
  Bench bench{.results = {1, 2}};
  EXPECT_EQ(bench.repeat_with({.budget = Seconds(100)}), (std::vector<double>{1, 2}));
}

TEST(Repeat, OneDisturbedRunIsNoNoise) {
  EXPECT_DOUBLE_EQ(middle_half({100, 100, 100, 10}).value(), 0.0);
  // 80, 90, 100, 110: a quarter cut at both ends leaves 90 and 100 around 95.
  EXPECT_DOUBLE_EQ(middle_half({110, 80, 100, 90}).value(), 10.0 / 95.0);
  EXPECT_EQ(middle_half({7}).value(), 0);
  EXPECT_EQ(noise_warning(std::vector<double>{100, 101, 99, 10}), std::nullopt);
  EXPECT_TRUE(noise_warning(std::vector<double>{100, 50, 75, 120}).has_value());
  EXPECT_TRUE(noise_warning(std::vector<double>{100}).has_value());
  EXPECT_EQ(noise_warning({}), std::nullopt);
}

TEST(Repeat, AFigureHasItsWords) {
  const std::vector<double> rates = {2e9, 1.98e9, 2.02e9};
  const auto figure = measured<BytesPerSecond>(rates, "so");
  EXPECT_EQ(figure.median.value(), 2e9);
  EXPECT_EQ(figure.low.value(), 1.98e9);
  EXPECT_EQ(figure.high.value(), 2.02e9);
  EXPECT_EQ(figure.runs, 3);
  EXPECT_EQ(figure.how, "so");
  EXPECT_EQ(figure.warning, std::nullopt);
}

}  // namespace
}  // namespace steelyard::probe
