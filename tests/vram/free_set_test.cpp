// The free blocks in order, beside std::set.
#include "vram/free_set.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace steelyard::vram::blocks {
namespace {

using Reference = std::set<FreeKey>;

void expect_same(const FreeSet& set, const Reference& reference) {
  ASSERT_EQ(set.size(), reference.size());
  auto expected = reference.begin();
  for (const FreeKey& key : set) {
    ASSERT_EQ(key.order, expected->order);
    ASSERT_EQ(key.address, expected->address);
    ++expected;
  }
  auto backwards = set.end();
  for (auto at = reference.rbegin(); at != reference.rend(); ++at) {
    --backwards;
    ASSERT_EQ(backwards->address, at->address);
  }
}

// Enough keys for several arrays, few enough sizes for many equal ones.
class FreeSetTest : public testing::TestWithParam<int> {};

TEST_P(FreeSetTest, IsAnOrderedSet) {
  std::mt19937 random(static_cast<unsigned>(GetParam()));
  const auto pick = [&](std::int64_t below) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(below));
  };
  FreeSet set;
  Reference reference;
  for (int i = 0; i < 12'000; ++i) {
    const FreeKey key(static_cast<int>(pick(2)), 512 * (1 + pick(40)), pick(1 << 20), i);
    // Grows for a while, then shrinks.
    const bool grows = pick(10) < (i < 8'000 ? 7 : 1);
    if (grows && reference.insert(key).second) set.insert(key);
    const auto its = set.lower_bound(key);
    const auto expected = reference.lower_bound(key);
    ASSERT_EQ(its == set.end(), expected == reference.end());
    if (expected == reference.end()) continue;
    ASSERT_EQ(its->address, expected->address);
    const auto from = set.from(key.stream(), key.size());
    ASSERT_EQ(from->order, reference.lower_bound(FreeKey(key.stream(), key.size(), 0, 0))->order);
    if (grows) continue;
    const FreeKey other(key.stream(), 512 * (1 + pick(40)), pick(1 << 20), i);
    if (pick(2) == 0 && !reference.contains(other)) {
      set.replace(its, other);
      reference.erase(expected);
      reference.insert(other);
    } else {
      set.erase(its);
      reference.erase(expected);
    }
  }
  expect_same(set, reference);
  while (!reference.empty()) {
    set.erase(*reference.begin());
    reference.erase(reference.begin());
  }
  EXPECT_EQ(set.size(), 0u);
  EXPECT_TRUE(set.begin() == set.end());
}

INSTANTIATE_TEST_SUITE_P(Random, FreeSetTest, testing::Range(0, 4));

}  // namespace
}  // namespace steelyard::vram::blocks
