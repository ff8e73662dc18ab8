#include "base/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <vector>

namespace steelyard {
namespace {

TEST(Parallel, EveryThingIsDoneOnce) {
  std::vector<std::atomic<int>> done(1000);
  for_each_side_by_side(done.size(), [&](std::size_t i) { ++done[i]; });
  for (const auto& count : done) EXPECT_EQ(count, 1);
  for_each_side_by_side(0, [](std::size_t) { FAIL(); });
}

TEST(Parallel, TheFirstFailureIsToldWhenAllAreDone) {
  std::atomic<int> done = 0;
  const auto run = [&] {
    for_each_side_by_side(50, [&](std::size_t i) {
      ++done;
      if (i == 7 || i == 30) throw std::runtime_error(i == 7 ? "seven" : "thirty");
    });
  };
  try {
    run();
    FAIL() << "nothing was thrown";
  } catch (const std::runtime_error& failure) {
    EXPECT_STREQ(failure.what(), "seven");
  }
  EXPECT_EQ(done, 50);
}

}  // namespace
}  // namespace steelyard
