// Expandable segments: one address range per pool and stream, mapped page by page.
#include <utility>

#include "vram/allocator_implementation.h"

namespace steelyard::vram {

namespace {

// Expandable segments are mapped by pages.
std::int64_t page_size(PoolKind kind) {
  return kind == PoolKind::small ? kSmallBuffer : kLargeBuffer;
}

}  // namespace

std::int64_t CachingAllocator::Implementation::grown_size(Index index) const {
  const Block& block = blocks_[index];
  if (block.next == kNone || blocks_[block.next].mapped) return block.size;
  return block.size + blocks_[block.next].size;
}

Index CachingAllocator::Implementation::expand(PoolKind kind, std::int64_t size, int stream) {
  Index index = find_expandable(kind, size, stream);
  if (index == kNone) index = new_address_range(kind, stream);
  if (!blocks_[index].mapped && !map(index, std::min(blocks_[index].size, size))) return kNone;
  while (blocks_[index].size < size) {
    const Index next = blocks_[index].next;
    if (!map(next, std::min(size - blocks_[index].size, blocks_[next].size))) return kNone;
    index = next;  // it has absorbed its mapped predecessor
  }
  remove_free(index);
  return index;
}

// The lowest unmapped range which, with its free neighbours, could hold `size` bytes; the free
// block just before it when there is one.
Index CachingAllocator::Implementation::find_expandable(PoolKind kind, std::int64_t size,
                                                        int stream) {
  const auto& unmapped = pool(kind).unmapped;
  for (auto key = unmapped.lower_bound({stream, 0, kNone});
       key != unmapped.end() && key->stream == stream; ++key) {
    const Index before = blocks_[key->block].previous;
    const Index first = before != kNone && !blocks_[before].used ? before : key->block;
    std::int64_t room = 0;
    for (Index at = first; room < size && at != kNone && !blocks_[at].used; at = blocks_[at].next) {
      room += blocks_[at].size;
    }
    if (room >= size) return first;
  }
  return kNone;
}

// 1 1/8 of the device, so that one range is enough however it is fragmented.
Index CachingAllocator::Implementation::new_address_range(PoolKind kind, int stream) {
  Block range;
  range.address = range.segment_begin = next_address_;
  range.size = round_up(capacity_ + capacity_ / 8, page_size(kind));
  range.stream = stream;
  range.pool = kind;
  range.mapped = false;
  next_address_ = checked_add(next_address_, range.size);
  const Index index = blocks_.add(range);
  insert_unmapped(index);
  return index;
}

// Maps whole pages for the first `size` bytes of an unmapped block and merges them with their free
// neighbours; the result is in the free set. False, and nothing changed, when the device is full.
bool CachingAllocator::Implementation::map(Index index, std::int64_t size) {
  const std::int64_t bytes = round_up(size, page_size(blocks_[index].pool));
  if (bytes > capacity_ - device_used_) return false;
  device_used_ += bytes;
  totals_.reserved += bytes;
  remove_unmapped(index);
  if (bytes < blocks_[index].size) {
    Block rest = blocks_[index];
    rest.address += bytes;
    rest.size -= bytes;
    rest.previous = index;
    const Index after = blocks_.add(rest);
    if (rest.next != kNone) blocks_[rest.next].previous = after;
    blocks_[index].next = after;
    blocks_[index].size = bytes;
    insert_unmapped(after);
  }
  blocks_[index].mapped = true;
  merge(index, blocks_[index].previous);
  merge(index, blocks_[index].next);
  insert_free(index);
  return true;
}

// Gives the whole pages inside a free block back to the device; the ends remain free blocks.
void CachingAllocator::Implementation::unmap(Index index) {
  const Block block = blocks_[index];
  const std::int64_t page = page_size(block.pool);
  const std::int64_t begin =
      block.segment_begin + round_up(block.address - block.segment_begin, page);
  const std::int64_t end =
      block.segment_begin + (block.address + block.size - block.segment_begin) / page * page;
  if (begin >= end) return;
  remove_free(index);
  if (begin > block.address) insert_free(cut(index, begin - block.address));
  Index unmapped = index;
  if (block.address + block.size > end) {
    unmapped = cut(index, end - begin);
    insert_free(index);
  }
  blocks_[unmapped].mapped = false;
  merge(unmapped, blocks_[unmapped].previous);
  merge(unmapped, blocks_[unmapped].next);
  device_used_ -= end - begin;
  totals_.reserved -= end - begin;
  if (blocks_[unmapped].previous == kNone && blocks_[unmapped].next == kNone) {
    blocks_.remove(unmapped);  // a wholly unmapped range is given up
  } else {
    insert_unmapped(unmapped);
  }
}

}  // namespace steelyard::vram
