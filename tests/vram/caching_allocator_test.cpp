// The caching allocator by hand-worked examples, and against a plain slow one on random traces.
#include "vram/caching_allocator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "vram/caching_allocator_reference.h"

namespace steelyard::vram {
namespace {

using namespace literals;

TEST(CachingAllocator, RoundsSmallRequestsTo512AndTakesA2MiBSegment) {
  CachingAllocator allocator({});
  const BlockId block = allocator.allocate(1_B);
  EXPECT_EQ(allocator.size_of(block), 512_B);
  EXPECT_EQ(allocator.allocated(), 512_B);
  EXPECT_EQ(allocator.reserved(), 2_MiB);
  allocator.free(block);
  EXPECT_EQ(allocator.allocated(), 0_B);
  EXPECT_EQ(allocator.reserved(), 2_MiB);  // segments are never returned by themselves
}

TEST(CachingAllocator, ARequestOfNothingIsNoBlock) {
  CachingAllocator allocator({});
  EXPECT_EQ(allocator.allocate(0_B), 0);
  EXPECT_EQ(allocator.reserved(), 0_B);
  EXPECT_EQ(allocator.size_of(0), 0_B);
  allocator.free(0);
}

// 11 MiB + 1 B rounds to 11 MiB + 512 B; its own segment is 12 MiB; the rest (1 MiB - 512 B) is not
// more than 1 MiB, so the block is not split: allocated shows 12,582,912.
TEST(CachingAllocator, AnUnsplitTailCountsAsAllocated) {
  CachingAllocator allocator({});
  allocator.allocate(11_MiB + 1_B);
  EXPECT_EQ(allocator.allocated(), 12'582'912_B);
  EXPECT_EQ(allocator.reserved(), 12'582'912_B);
}

// cuBLAS's workspace of 8,519,680 B lies between 1 and 10 MiB: a 20 MiB segment, split.
TEST(CachingAllocator, AMediumRequestTakesA20MiBSegmentAndLeavesTheRest) {
  CachingAllocator allocator({});
  allocator.allocate(8'519'680_B);
  EXPECT_EQ(allocator.allocated(), 8'519'680_B);
  EXPECT_EQ(allocator.reserved(), 20_MiB);
  allocator.allocate(8_MiB);  // 12,451,840 B are left
  EXPECT_EQ(allocator.reserved(), 20_MiB);
}

// Free blocks of 30, 22 and 40 MiB between live ones: 21.5 MiB goes to that of 22 MiB (best fit;
// the rest of 0.5 MiB stays with it).
TEST(CachingAllocator, TheSmallestSufficientBlockIsTaken) {
  CachingAllocator allocator({});
  std::vector<BlockId> blocks;
  for (const Bytes size : {30_MiB, 22_MiB, 40_MiB}) blocks.push_back(allocator.allocate(size));
  for (const BlockId block : blocks) allocator.free(block);
  EXPECT_EQ(allocator.size_of(allocator.allocate(21_MiB + 512_KiB)), 22_MiB);
  EXPECT_EQ(allocator.reserved(), 92_MiB);
}

// 100 MiB in four of 25 MiB: freeing the middle two gives one block of 50 MiB.
TEST(CachingAllocator, FreeNeighboursMerge) {
  CachingAllocator allocator({});
  allocator.free(allocator.allocate(100_MiB));
  std::vector<BlockId> quarters;
  for (int i = 0; i < 4; ++i) quarters.push_back(allocator.allocate(25_MiB));
  EXPECT_EQ(allocator.reserved(), 100_MiB);
  allocator.free(quarters[1]);
  allocator.free(quarters[2]);
  allocator.allocate(50_MiB);
  EXPECT_EQ(allocator.reserved(), 100_MiB);
}

TEST(CachingAllocator, MemoryOfOneStreamDoesNotServeAnother) {
  CachingAllocator allocator({});
  allocator.free(allocator.allocate(64_MiB, 1));
  allocator.allocate(64_MiB, 0);
  EXPECT_EQ(allocator.reserved(), 128_MiB);
  allocator.allocate(64_MiB, 1);
  EXPECT_EQ(allocator.reserved(), 128_MiB);
}

// 84 MiB at 4 divisions: steps of 64/4 = 16 MiB, so 96 MiB.
TEST(CachingAllocator, RoundupDivisions) {
  CachingAllocator allocator({.roundup_power2_divisions = 4});
  EXPECT_EQ(allocator.size_of(allocator.allocate(84_MiB)), 96_MiB);
  AllocatorSettings settings;
  settings.roundup_by_interval[6] = 4;  // 64 MiB to 128 MiB
  CachingAllocator by_interval(settings);
  EXPECT_EQ(by_interval.size_of(by_interval.allocate(84_MiB)), 96_MiB);
  EXPECT_EQ(by_interval.size_of(by_interval.allocate(130_MiB)), 130_MiB);
}

// With max_split_size 64 MiB a free block of 80 MiB is kept whole: 10 MiB does not take from it.
TEST(CachingAllocator, MaxSplitSizeKeepsLargeBlocksWhole) {
  CachingAllocator allocator({.max_split_size = 64_MiB});
  allocator.free(allocator.allocate(80_MiB));
  allocator.allocate(10_MiB);
  EXPECT_EQ(allocator.reserved(), 90_MiB);
  allocator.allocate(70_MiB);  // at most 20 MiB larger than asked: taken whole
  EXPECT_EQ(allocator.allocated(), 90_MiB);
}

// One range mapped in pages of 20 MiB: 30 MiB takes 2 pages, 45 MiB more starts in the free 10 MiB
// and takes 2 more: 80 MiB, where segments would have been 30 + 46 MiB.
TEST(CachingAllocator, ExpandableSegmentsGrowByPages) {
  CachingAllocator allocator({.expandable_segments = true});
  const BlockId first = allocator.allocate(30_MiB);
  EXPECT_EQ(allocator.reserved(), 40_MiB);
  allocator.allocate(45_MiB);
  EXPECT_EQ(allocator.reserved(), 80_MiB);
  allocator.free(first);
  allocator.empty_cache();  // the page from 20 to 40 MiB is shared with the second block
  EXPECT_EQ(allocator.reserved(), 60_MiB);
}

TEST(CachingAllocator, AFullDeviceReleasesCachedSegmentsBeforeItGivesUp) {
  CachingAllocator allocator({.device_bytes = 100_MiB});
  allocator.free(allocator.allocate(60_MiB));
  EXPECT_TRUE(allocator.try_allocate(80_MiB));
  EXPECT_EQ(allocator.reserved(), 80_MiB);
  EXPECT_FALSE(allocator.try_allocate(40_MiB));
  EXPECT_EQ(allocator.allocated(), 80_MiB);
}

TEST(CachingAllocator, AnAbsurdRequestIsAnOverflowAndNotACrash) {
  for (const bool expandable : {false, true}) {
    CachingAllocator allocator({.expandable_segments = expandable});
    EXPECT_THROW(allocator.allocate(Bytes(std::int64_t{1} << 62)), QuantityOverflow);
    allocator.allocate(1_MiB);
    EXPECT_EQ(allocator.reserved(), 2_MiB);
  }
}

// --- Random traces against the plain allocator
// -----------------------------------------------------

std::int64_t random_size(std::mt19937_64& random) {
  static constexpr std::int64_t kEdges[] = {
      1, 511, 512, 513, 1 << 20, 1048577, 10485760, 10485761, 20971520, 67108864, 88080384};
  if (random() % 4 == 0) return kEdges[random() % std::size(kEdges)];
  const int bits = 4 + static_cast<int>(random() % 24);  // 16 B to 256 MiB
  return 1 + static_cast<std::int64_t>(random() % (std::uint64_t{1} << bits));
}

void expect_agreement(const AllocatorSettings& settings, std::uint64_t seed, int operations) {
  std::mt19937_64 random(seed);
  CachingAllocator fast(settings);
  testing::PlainAllocator plain(settings);
  std::vector<std::pair<BlockId, std::int64_t>> live;
  for (int i = 0; i < operations; ++i) {
    const std::uint64_t choice = random() % 100;
    if (choice < 55 || live.empty()) {
      const std::int64_t size = random_size(random);
      const int stream = static_cast<int>(random() % 8 == 0);
      const auto a = fast.try_allocate(Bytes(size), stream);
      const auto b = plain.allocate(size, stream);
      ASSERT_EQ(a.has_value(), b.has_value()) << "operation " << i << ", " << size << " B";
      if (a) live.emplace_back(*a, *b);
    } else if (choice < 99) {
      std::swap(live[random() % live.size()], live.back());
      fast.free(live.back().first);
      plain.free(live.back().second);
      live.pop_back();
    } else {
      fast.empty_cache();
      plain.empty_cache();
    }
    ASSERT_EQ(fast.allocated().value(), plain.allocated()) << "operation " << i;
    ASSERT_EQ(fast.reserved().value(), plain.reserved()) << "operation " << i;
    ASSERT_LE(fast.allocated(), fast.reserved());
  }
}

// A freed block that another stream still reads is no room until that stream is waited for.
TEST(CachingAllocator, AsksTheDeviceAgainOnceStreamsAreDone) {
  AllocatorSettings settings;
  settings.device_bytes = 64_MiB;
  CachingAllocator allocator(settings);
  const BlockId read_elsewhere = allocator.allocate(40_MiB, 1);
  allocator.retire(read_elsewhere);
  EXPECT_EQ(allocator.allocated(), Bytes());
  EXPECT_EQ(allocator.try_allocate(40_MiB), std::nullopt);
  EXPECT_EQ(allocator.try_device(40_MiB, 0), std::nullopt);
  allocator.free(read_elsewhere);
  ASSERT_NE(allocator.try_device(40_MiB, 0), std::nullopt);
  EXPECT_EQ(allocator.reserved(), 40_MiB) << "the other stream's segment went back";
}

TEST(CachingAllocator, GrowsByWhatIsMissingOrByMore) {
  AllocatorSettings settings;
  settings.device_bytes = 64_MiB;
  CachingAllocator allocator(settings);
  EXPECT_EQ(allocator.try_allocate(100_MiB), std::nullopt);
  EXPECT_NE(allocator.allocate_beyond(100_MiB, 0), 0);
  EXPECT_EQ(allocator.try_allocate(20_MiB), std::nullopt);
  EXPECT_NE(allocator.allocate_beyond(20_MiB, 0, 50_MiB), 0);
  EXPECT_EQ(allocator.reserved(), 120_MiB);
  EXPECT_NE(allocator.try_allocate(30_MiB), std::nullopt);
  EXPECT_EQ(allocator.try_allocate(2_MiB), std::nullopt);
}

// What a request takes is more than it asks for: powers of two in few steps, pages of 20 MiB.
TEST(CachingAllocator, GrowsByWhatARequestBecomes) {
  for (const bool expandable : {false, true}) {
    for (const std::int64_t divisions : {0, 2}) {
      AllocatorSettings settings;
      settings.expandable_segments = expandable;
      settings.roundup_power2_divisions = divisions;
      settings.device_bytes = 64_MiB;
      CachingAllocator allocator(settings);
      ASSERT_NE(allocator.try_allocate(30_MiB), std::nullopt);
      for (const Bytes wanted : {33_MiB, 21_MiB, 1_MiB + 1_B, 512_KiB}) {
        EXPECT_NE(allocator.allocate_beyond(wanted, 0), 0) << expandable << " " << divisions;
      }
    }
  }
}

TEST(CachingAllocator, AgreesWithThePlainAllocatorOnRandomTraces) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    AllocatorSettings settings;
    settings.device_bytes = seed % 2 == 0 ? Bytes(80_GiB) : Bytes(700_MiB);
    settings.expandable_segments = seed % 3 == 0;
    if (seed % 5 == 1) settings.max_split_size = 40_MiB;
    if (seed % 5 == 2) settings.roundup_power2_divisions = 8;
    SCOPED_TRACE("seed " + std::to_string(seed));
    expect_agreement(settings, seed, 1500);
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace steelyard::vram
