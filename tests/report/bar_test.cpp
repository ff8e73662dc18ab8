#include "report/bar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "base/text.h"

namespace steelyard::report {
namespace {

using ::testing::ElementsAre;

const Paint& plain() {
  static const Paint paint({.columns = 100, .colour = false, .ascii = true});
  return paint;
}

Bar bar_of(std::vector<double> amounts, std::optional<double> limit) {
  Bar bar;
  char letter = 'A';
  for (const double amount : amounts) {
    bar.parts.push_back(
        {.letter = letter, .name = std::string(1, letter), .size = "1 GiB", .amount = amount});
    ++letter;
  }
  bar.limit = limit;
  if (limit) bar.limit_text = "cap";
  return bar;
}

TEST(Bar, PartsTakeTheirShareOfTheLimit) {
  // 20 columns: 2 ends, " cap" behind, 14 cells. 2/14, 3/14 of the limit are 2 and 3 cells.
  EXPECT_THAT(bar_lines(bar_of({2, 3}, 14.0), 20, plain()), ElementsAre("[A#B--.........] cap"));
}

TEST(Bar, BeyondTheLimitTheWholeIsTheSumAndTheLimitIsMarked) {
  // 13 columns: 2 ends, 1 mark, 10 cells for a sum of 20: the limit of 10 is after 5 cells.
  EXPECT_THAT(bar_lines(bar_of({4, 16}, 10.0), 13, plain()),
              ElementsAre("[A#B--|-----]", "      ^ cap"));
}

TEST(Bar, WithoutALimitThePartsFillIt) {
  EXPECT_THAT(bar_lines(bar_of({1, 1}, std::nullopt), 12, plain()), ElementsAre("[A####B----]"));
}

TEST(Bar, AbsentPartsAreNeitherInTheBarNorInTheLegend) {
  const Bar bar = bar_of({1, 0, 1}, std::nullopt);
  EXPECT_THAT(bar_lines(bar, 12, plain()), ElementsAre("[A####C----]"));
  EXPECT_THAT(legend_lines(bar, 60, plain()), ElementsAre("A A 1 GiB 50 %  C C 1 GiB 50 %"));
}

TEST(Bar, LegendTakesAsManyColumnsAsFit) {
  const Bar bar = bar_of({1, 1, 1, 1}, std::nullopt);
  EXPECT_EQ(legend_lines(bar, 100, plain()).size(), 1U);
  EXPECT_EQ(legend_lines(bar, 40, plain()).size(), 2U);
  EXPECT_EQ(legend_lines(bar, 10, plain()).size(), 4U);
  EXPECT_TRUE(legend_lines(Bar{}, 40, plain()).empty());
}

TEST(Bar, CellsAddUpToTheRoundedWhole) {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> amount(0.0, 1.0);
  for (int round = 0; round < 1000; ++round) {
    std::vector<double> amounts(1 + random() % 12);
    for (double& a : amounts) a = amount(random);
    const double sum = std::accumulate(amounts.begin(), amounts.end(), 0.0);
    const auto cells = cells_of(amounts, sum * 2.0, 80);
    EXPECT_EQ(std::accumulate(cells.begin(), cells.end(), std::size_t{0}), 40U);
    for (std::size_t i = 0; i < amounts.size(); ++i) {
      EXPECT_NEAR(static_cast<double>(cells[i]), amounts[i] / sum * 40.0, 1.0);
    }
  }
}

TEST(Bar, EveryLineKeepsToItsWidth) {
  std::mt19937 random(11);
  std::uniform_real_distribution<double> amount(0.0, 100.0);
  const Paint drawn({.columns = 100, .colour = true, .ascii = false});
  for (int round = 0; round < 300; ++round) {
    Bar bar = bar_of({amount(random), amount(random), amount(random)}, amount(random));
    bar.limit_text = "79.6 GiB";
    for (const std::string& line : bar_lines(bar, 60, drawn)) {
      EXPECT_LE(display_width(line), 60U) << line;
    }
    EXPECT_EQ(display_width(bar_lines(bar, 60, drawn).front()), 60U);
  }
}

}  // namespace
}  // namespace steelyard::report
