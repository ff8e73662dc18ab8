// TensorFlow's allocator by hand-worked examples of its rules, and against a plain slow one on
// random traces.
#include "vram/bfc_allocator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "vram/bfc_allocator_reference.h"

namespace steelyard::vram {
namespace {

using namespace literals;

BfcSettings pool_of(Bytes limit) {
  BfcSettings settings;
  settings.limit = limit;
  return settings;
}

BfcSettings growing(Bytes limit) {
  BfcSettings settings = pool_of(limit);
  settings.allow_growth = true;
  return settings;
}

BlockId take(BfcAllocator& allocator, Bytes bytes) {
  const std::optional<BlockId> block = allocator.try_allocate(bytes);
  EXPECT_TRUE(block) << bytes.value();
  return block.value_or(0);
}

TEST(BfcAllocator, RoundsTo256AndTakesTheWholePoolAtOnce) {
  BfcAllocator allocator(pool_of(1_GiB));
  EXPECT_EQ(allocator.reserved(), 0_B);
  const BlockId one = take(allocator, 1_B);
  EXPECT_EQ(allocator.size_of(one), 256_B);
  EXPECT_EQ(allocator.reserved(), 1_GiB);
  const BlockId two = take(allocator, 257_B);
  EXPECT_EQ(allocator.size_of(two), 512_B);
  EXPECT_EQ(allocator.address_of(two), allocator.address_of(one) + 256);
  allocator.free(one);
  allocator.free(two);
  EXPECT_EQ(allocator.allocated(), 0_B);
  EXPECT_EQ(allocator.reserved(), 1_GiB);
}

TEST(BfcAllocator, ARequestOfNothingIsNoChunk) {
  BfcAllocator allocator(pool_of(1_MiB));
  EXPECT_EQ(allocator.try_allocate(0_B), BlockId{0});
  EXPECT_EQ(allocator.reserved(), 0_B);
  EXPECT_EQ(allocator.size_of(0), 0_B);
  allocator.free(0);
  allocator.retire(0);
}

// A free chunk of 1 MiB. 600 KiB take all of it (less than twice); 512 KiB cut it in halves.
TEST(BfcAllocator, AChunkIsSplitWhenItIsTwiceTheRequest) {
  for (const auto& [request, got] : {std::pair{600_KiB, 1_MiB}, std::pair{512_KiB, 512_KiB}}) {
    BfcAllocator allocator(pool_of(1_MiB));
    EXPECT_EQ(allocator.size_of(take(allocator, request)), got);
  }
}

// 300 MiB of a chunk of 427 MiB: 127 MiB too much stay with it; of 428 MiB, 128 MiB are cut off.
TEST(BfcAllocator, AChunkIsSplitWhenItIs128MiBTooLarge) {
  BfcAllocator near(pool_of(427_MiB));
  EXPECT_EQ(near.size_of(take(near, 300_MiB)), 427_MiB);
  BfcAllocator far(pool_of(428_MiB));
  EXPECT_EQ(far.size_of(take(far, 300_MiB)), 300_MiB);
}

// 4, 3 and 5 KiB lie free between live chunks: 3 KiB serves 2.5 KiB; then 4 KiB does.
TEST(BfcAllocator, TheSmallestSufficientChunkIsTaken) {
  BfcAllocator allocator(pool_of(1_MiB));
  std::vector<BlockId> holes;
  for (const Bytes size : {4_KiB, 3_KiB, 5_KiB}) {
    holes.push_back(take(allocator, size));
    take(allocator, 1_KiB);
  }
  for (const BlockId hole : holes) allocator.free(hole);
  EXPECT_EQ(take(allocator, 2560_B), holes[1]);
  EXPECT_EQ(take(allocator, 2560_B), holes[0]);
}

// Two neighbours of 1 KiB, freed in either order, are one chunk of 2 KiB again.
TEST(BfcAllocator, FreeNeighboursMerge) {
  for (const bool first_first : {true, false}) {
    BfcAllocator allocator(pool_of(4_KiB));
    const BlockId one = take(allocator, 1_KiB);
    const BlockId two = take(allocator, 1_KiB);
    take(allocator, 2_KiB);
    const std::int64_t begin = allocator.address_of(one);
    allocator.free(first_first ? one : two);
    EXPECT_FALSE(allocator.try_allocate(2_KiB));
    allocator.free(first_first ? two : one);
    EXPECT_EQ(allocator.address_of(take(allocator, 2_KiB)), begin);
  }
}

// The first region has 2 MiB, the next 4, then 8; 20 MiB double 16 to 32 and leave it there.
TEST(BfcAllocator, RegionsDoubleAsItGrows) {
  BfcAllocator allocator(growing(1_GiB));
  take(allocator, 256_B);
  EXPECT_EQ(allocator.reserved(), 2_MiB);
  take(allocator, 2_MiB);
  EXPECT_EQ(allocator.reserved(), 6_MiB);
  take(allocator, 5_MiB);
  EXPECT_EQ(allocator.reserved(), 14_MiB);
  take(allocator, 20_MiB);
  EXPECT_EQ(allocator.reserved(), 46_MiB);
  take(allocator, 31_MiB);  // 20 MiB took the whole of that one; the next has 32 MiB again
  EXPECT_EQ(allocator.reserved(), 78_MiB);
  take(allocator, 33_MiB);  // and the one behind it 64
  EXPECT_EQ(allocator.reserved(), 142_MiB);
}

// 10 MiB: 2, then what is left of 4 + 8. Regions of 2 and 4 MiB are free: they go back, and one of
// 8 (the size that was due) comes in their place.
TEST(BfcAllocator, FreeRegionsAreGivenBackBeforeItGivesUp) {
  BfcSettings settings = growing(10_MiB);
  for (const bool collects : {true, false}) {
    settings.garbage_collection = collects;
    BfcAllocator allocator(settings);
    const BlockId small = take(allocator, 2_MiB);
    const BlockId large = take(allocator, 4_MiB);
    allocator.free(small);
    allocator.free(large);
    EXPECT_EQ(allocator.reserved(), 6_MiB);
    const auto block = allocator.try_allocate(7_MiB);
    EXPECT_EQ(block.has_value(), collects);
    EXPECT_EQ(allocator.reserved(), collects ? 8_MiB : 6_MiB);
  }
}

// Of 1,000 units of 256 B the driver has 700: 0.9 x 1000 = 900, 810, 729, then 656.1, rounded up to
// whole units: 657.
TEST(BfcAllocator, BacksOffByTenthsWhereTheDriverHasLess) {
  BfcSettings settings = pool_of(256000_B);
  settings.device_bytes = Bytes(700 * 256);
  BfcAllocator allocator(settings);
  take(allocator, 256_B);
  EXPECT_EQ(allocator.reserved(), Bytes(657 * 256));
}

TEST(BfcAllocator, BeyondThePoolItsLastRegionGetsLonger) {
  BfcAllocator allocator(pool_of(1_MiB));
  const BlockId first = take(allocator, 512_KiB);
  EXPECT_FALSE(allocator.try_allocate(768_KiB));
  const BlockId second = allocator.allocate_beyond(768_KiB, 0);  // 512 KiB were free at the end
  EXPECT_EQ(allocator.reserved(), 1280_KiB);
  EXPECT_EQ(allocator.address_of(second), allocator.address_of(first) + (512 << 10));
  BfcAllocator unknown({});
  EXPECT_FALSE(unknown.try_allocate(1_KiB));
  EXPECT_NE(unknown.allocate_beyond(1000_B, 0), 0);
  EXPECT_EQ(unknown.reserved(), 1_KiB);
}

TEST(BfcAllocator, ARetiredChunkIsNotAllocatedAndNotFree) {
  BfcAllocator allocator(pool_of(2_KiB));
  const BlockId block = take(allocator, 1_KiB);
  allocator.retire(block);
  EXPECT_EQ(allocator.allocated(), 0_B);
  EXPECT_FALSE(allocator.try_allocate(2_KiB));
  allocator.free(block);
  EXPECT_EQ(take(allocator, 2_KiB), block);
}

struct Live {
  BlockId fast;
  std::int64_t plain;
};

void compare(const BfcSettings& settings, std::uint32_t seed) {
  std::mt19937 random(seed);
  BfcAllocator fast(settings);
  testing::PlainBfc plain(settings);
  std::vector<Live> live;
  const auto below = [&](std::int64_t n) {
    return std::uniform_int_distribution(std::int64_t{0}, n - 1)(random);
  };
  for (int i = 0; i < 600; ++i) {
    const bool frees = !live.empty() && below(100) < 45;
    if (frees) {
      const auto at = static_cast<std::size_t>(below(static_cast<std::int64_t>(live.size())));
      fast.free(live[at].fast);
      plain.free(live[at].plain);
      live.erase(live.begin() + static_cast<std::ptrdiff_t>(at));
    } else {
      const std::int64_t bytes = 1 + below(std::int64_t{1} << (4 + below(25)));
      const auto a = fast.try_allocate(Bytes(bytes));
      const auto b = plain.allocate(bytes);
      ASSERT_EQ(a.has_value(), b.has_value()) << "seed " << seed << ", step " << i;
      if (a) live.push_back({*a, *b});
    }
    ASSERT_EQ(fast.allocated().value(), plain.allocated()) << "seed " << seed << ", step " << i;
    ASSERT_EQ(fast.reserved().value(), plain.reserved()) << "seed " << seed << ", step " << i;
  }
}

TEST(BfcAllocator, AgreesWithThePlainOneOnRandomTraces) {
  for (std::uint32_t seed = 1; seed <= 120; ++seed) {
    BfcSettings settings = pool_of(Bytes(std::int64_t{64} << (20 + seed % 5)));
    settings.limit = *settings.limit + Bytes(seed % 7 * 100);
    settings.allow_growth = seed % 2 == 0;
    settings.garbage_collection = seed % 3 != 0;
    if (seed % 4 == 0) settings.device_bytes = *settings.limit - 20_MiB;
    compare(settings, seed);
  }
}

// Chunks that lie alike and fingerprints that agree: the next request gets the same address.
TEST(BfcAllocator, TheFingerprintTellsFreeChunksApart) {
  BfcAllocator one(pool_of(1_MiB));
  BfcAllocator two(pool_of(1_MiB));
  const BlockId a = take(one, 1_KiB);
  take(two, 1_KiB);
  EXPECT_EQ(one.fingerprint(), two.fingerprint());
  one.free(a);
  EXPECT_NE(one.fingerprint(), two.fingerprint());
}

}  // namespace
}  // namespace steelyard::vram
