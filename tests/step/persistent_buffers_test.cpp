#include "step/persistent_buffers.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

namespace steelyard::step {
namespace {

using Sizes = std::vector<std::int64_t>;

TEST(PersistentBuffers, WithoutShardsNothingIsPadded) {
  EXPECT_EQ(buffer_elements({100, 7, 1}, {}), 108);
}

// 100 ends at 100; 7 begins at 128 and ends at 135; 1 at 192..193; the bucket ends at a multiple of
// lcm(6, 128) = 384.
TEST(PersistentBuffers, PadsStartsAndEnds) {
  EXPECT_EQ(buffer_elements({100, 7, 1}, {.padded = true, .ranks = 6}), 384);
}

// Buckets of 100: 100 closes the first at 128 (2 ranks), 70 + 40 the second: 128 + 128 + 40 = 296,
// up to 384; 1 begins a third: 385, up to 512.
TEST(PersistentBuffers, EachBucketIsPadded) {
  EXPECT_EQ(buffer_elements({100, 70, 40, 1}, {.padded = true, .ranks = 2, .bucket_numel = 100}),
            512);
}

TEST(PersistentBuffers, PadsForTheNetwork) {
  EXPECT_EQ(buffer_elements({100}, {.padded = true, .ranks = 2, .pads_for_high_bandwidth = true}),
            65536);
}

TEST(PersistentBuffers, HoldsAllAndLittleMore) {
  std::mt19937 random(42);
  const auto pick = [&](std::int64_t most) {
    return std::uniform_int_distribution<std::int64_t>(1, most)(random);
  };
  for (int round = 0; round < 200; ++round) {
    Sizes sizes(static_cast<std::size_t>(pick(50)));
    for (std::int64_t& size : sizes) size = pick(100'000);
    BufferRules rules{.padded = true, .ranks = pick(64)};
    if (round % 2 == 0) rules.bucket_numel = pick(500'000);
    const std::int64_t total = std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
    const std::int64_t padded = buffer_elements(sizes, rules);
    EXPECT_GE(padded, total);
    EXPECT_EQ(padded % rules.ranks, 0);
    const std::int64_t most_per_size = 63 + std::lcm(rules.ranks, std::int64_t{128});
    EXPECT_LE(padded, total + std::ssize(sizes) * most_per_size);
  }
}

}  // namespace
}  // namespace steelyard::step
