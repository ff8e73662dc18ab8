#include "search/bisection.h"

#include <gtest/gtest.h>

#include <random>

namespace steelyard::search {
namespace {

// The plain way: one after the other.
std::int64_t counted(std::int64_t most, const std::function<bool(std::int64_t)>& holds) {
  std::int64_t last = 0;
  while (last < most && holds(last + 1)) ++last;
  return last;
}

TEST(Bisection, FindsWhatCountingFinds) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 500; ++i) {
    const auto most = static_cast<std::int64_t>(random() % 300) + 1;
    const auto edge = static_cast<std::int64_t>(random() % 320);
    const auto from = static_cast<std::int64_t>(random() % 400) - 20;
    int asked = 0;
    const auto holds = [&](std::int64_t number) {
      ++asked;
      EXPECT_GE(number, 1);
      EXPECT_LE(number, most);
      return number <= edge;
    };
    const End end = last_that_holds(from, most, holds);
    EXPECT_LE(asked, 22);
    EXPECT_EQ(end.last, counted(most, [&](std::int64_t number) { return number <= edge; }));
    EXPECT_EQ(end.open, edge >= most);
  }
}

}  // namespace
}  // namespace steelyard::search
