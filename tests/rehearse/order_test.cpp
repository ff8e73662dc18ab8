#include "rehearse/order.h"

#include <gtest/gtest.h>

#include <vector>

namespace steelyard::rehearse {
namespace {

TEST(Order, EveryEpochHasEveryRecordOnce) {
  for (const std::uint64_t records : {1U, 2U, 3U, 4U, 5U, 17U, 1000U, 4097U}) {
    const Order order(records, 42, true);
    for (std::uint64_t epoch = 0; epoch < 3; ++epoch) {
      std::vector<int> seen(records, 0);
      for (std::uint64_t i = 0; i < records; ++i) ++seen.at(order.at(epoch * records + i));
      for (const int times : seen) ASSERT_EQ(times, 1) << records;
    }
  }
}

TEST(Order, SeedsAndEpochsDiffer) {
  const Order a(1000, 1, true), again(1000, 1, true), b(1000, 2, true);
  int same_seed = 0, same_epoch = 0, in_place = 0;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    EXPECT_EQ(a.at(i), again.at(i));
    same_seed += a.at(i) == b.at(i) ? 1 : 0;
    same_epoch += a.at(i) == a.at(i + 1000) ? 1 : 0;
    in_place += a.at(i) == i ? 1 : 0;
  }
  // Random permutations share one place on average.
  EXPECT_LT(same_seed, 10);
  EXPECT_LT(same_epoch, 10);
  EXPECT_LT(in_place, 10);
}

TEST(Order, OneAfterTheOther) {
  const Order order(10, 42, false);
  for (std::uint64_t i = 0; i < 25; ++i) EXPECT_EQ(order.at(i), i % 10);
  EXPECT_EQ(order.epoch(9), 0U);
  EXPECT_EQ(order.epoch(10), 1U);
}

}  // namespace
}  // namespace steelyard::rehearse
