// Blocks that wait for another stream, by hand: units of 20 MiB, each a segment of its own.
#include "vram/waiting_blocks.h"

#include <gtest/gtest.h>

#include "vram/caching_allocator.h"

namespace steelyard::vram {
namespace {

using namespace literals;
using step::PhaseKind;
using step::Stream;

// Gathers and frees so many units; what the device had to give.
Bytes reserved_after(CachingAllocator& allocator, WaitingBlocks& waiting, int units) {
  for (int i = 0; i < units; ++i) {
    waiting.retire(allocator.allocate(20_MiB), Stream::all_gather);
  }
  return allocator.reserved();
}

TEST(WaitingBlocks, UnderALimitTheThirdUnitWaitsForTheFirst) {
  CachingAllocator allocator({});
  WaitingBlocks waiting(allocator, 2);
  // The block of the oldest is free once the one after the next has been let go too.
  EXPECT_EQ(reserved_after(allocator, waiting, 8), 60_MiB);
}

TEST(WaitingBlocks, WithoutOneAllWaitUntilTheNextForward) {
  CachingAllocator allocator({});
  WaitingBlocks waiting(allocator, 0);
  waiting.begin(PhaseKind::forward);
  EXPECT_EQ(reserved_after(allocator, waiting, 8), 160_MiB);
  waiting.begin(PhaseKind::forward);  // the same one, another layer
  EXPECT_EQ(reserved_after(allocator, waiting, 1), 180_MiB);
  waiting.begin(PhaseKind::backward);
  EXPECT_EQ(reserved_after(allocator, waiting, 1), 200_MiB);
  waiting.begin(PhaseKind::forward);  // of the next micro-batch
  EXPECT_EQ(reserved_after(allocator, waiting, 10), 200_MiB);
}

TEST(WaitingBlocks, UnderALimitPhasesDoNotMatter) {
  CachingAllocator allocator({});
  WaitingBlocks waiting(allocator, 2);
  waiting.begin(PhaseKind::backward);
  waiting.retire(allocator.allocate(20_MiB), Stream::all_gather);
  waiting.begin(PhaseKind::forward);
  allocator.allocate(20_MiB);
  EXPECT_EQ(allocator.reserved(), 40_MiB);
}

}  // namespace
}  // namespace steelyard::vram
