#include "vram/bfc_allocator.h"

#include <algorithm>
#include <cassert>
#include <iterator>
#include <limits>
#include <vector>

#include "base/fingerprint.h"

namespace steelyard::vram {

namespace {

constexpr std::int64_t kMinAllocationSize = 256;
constexpr std::int64_t kFirstRegion = std::int64_t{2} << 20;
// A chunk is split where it is twice the request, or by this much larger (fragmentation_fraction
// 0).
constexpr std::int64_t kMaxInternalFragmentation = std::int64_t{128} << 20;
constexpr float kBackpedalFactor = 0.9F;
// Regions do not touch: the driver promises nothing (SupportsCoalescing() is false).
constexpr std::int64_t kBetweenRegions = kMinAllocationSize;
constexpr std::int64_t kFirstAddress = std::int64_t{1} << 40;

std::int64_t rounded_bytes(std::int64_t bytes) {
  return round_up(bytes, kMinAllocationSize);
}

}  // namespace

BfcAllocator::BfcAllocator(const BfcSettings& settings)
    : settings_(settings),
      limit_(settings.limit ? settings.limit->value() : 0),
      next_region_(rounded_bytes(settings.allow_growth ? std::min(limit_, kFirstRegion) : limit_)),
      next_address_(kFirstAddress) {
  assert(limit_ >= 0);
}

// FindChunkPtr: best fit, the lowest address among equals.
std::optional<BlockId> BfcAllocator::find(std::int64_t rounded) {
  const auto best = free_.from(0, rounded);
  if (best == free_.end()) return std::nullopt;
  Index index = best->block;
  free_.erase(best);
  const std::int64_t rest = chunks_[index].size - rounded;
  if (rest >= rounded || rest >= kMaxInternalFragmentation) {
    blocks::Block part = chunks_[index];
    part.size = rounded;
    part.next = index;
    const Index low = chunks_.add(part);
    if (part.previous != blocks::kNone) chunks_[part.previous].next = low;
    blocks::Block& upper = chunks_[index];
    upper.previous = low;
    upper.address += rounded;
    upper.size = rest;
    free_.insert(key_of(index));
    index = low;
  }
  chunks_[index].used = true;
  totals_.allocated += chunks_[index].size;
  return BlockId{index} + 1;
}

// Extend: one more region, where the limit leaves room for the request.
bool BfcAllocator::extend(std::int64_t rounded) {
  const std::int64_t available =
      (limit_ - totals_.reserved) / kMinAllocationSize * kMinAllocationSize;
  if (rounded > available || next_region_ == 0) return false;
  const bool raised = rounded > next_region_;
  while (rounded > next_region_) next_region_ *= 2;
  const std::optional<std::int64_t> bytes = from_device(std::min(next_region_, available), rounded);
  if (!bytes) return false;
  if (!raised && next_region_ <= limit_) next_region_ *= 2;  // beyond the limit it says no more
  add_region(*bytes);
  return true;
}

std::optional<std::int64_t> BfcAllocator::from_device(std::int64_t bytes, std::int64_t rounded) {
  if (!settings_.device_bytes) return bytes;
  const std::int64_t room = settings_.device_bytes->value() - totals_.reserved;
  while (bytes > room) {
    // In single precision, as there: sizes above 16 MiB do not come out as whole tenths.
    const float less = static_cast<float>(bytes) * kBackpedalFactor;
    const std::int64_t next = rounded_bytes(static_cast<std::int64_t>(less));
    bytes = next < bytes ? next : bytes - kMinAllocationSize;
    if (bytes < rounded) return std::nullopt;
  }
  return bytes;
}

void BfcAllocator::add_region(std::int64_t bytes) {
  blocks::Block whole;
  whole.address = whole.segment_begin = next_address_;
  whole.size = bytes;
  next_address_ = checked_add(next_address_, checked_add(bytes, kBetweenRegions));
  totals_.reserved += bytes;
  const Index index = chunks_.add(whole);
  regions_[whole.address] = index;
  free_.insert(key_of(index));
}

bool BfcAllocator::give_back_free_regions(std::int64_t rounded) {
  if (!settings_.garbage_collection) return false;
  if (rounded > limit_ - totals_.allocated) return false;
  // Neighbours that are free have merged: a region without a live chunk is one chunk.
  std::vector<Index> regions;
  std::int64_t free = 0;
  for (const blocks::FreeKey& key : free_) {
    const blocks::Block& chunk = chunks_[key.block];
    if (chunk.previous != blocks::kNone || chunk.next != blocks::kNone) continue;
    free += chunk.size;
    regions.push_back(key.block);
  }
  if (free == 0 || rounded > limit_ - totals_.reserved + free) return false;
  for (const Index index : regions) {
    totals_.reserved -= chunks_[index].size;
    free_.erase(key_of(index));
    regions_.erase(chunks_[index].segment_begin);
    chunks_.remove(index);
  }
  return true;
}

std::optional<BlockId> BfcAllocator::try_allocate(Bytes requested, int /*stream*/) {
  assert(requested.value() >= 0);
  if (requested.value() == 0) return BlockId{0};
  const std::int64_t rounded = rounded_bytes(requested.value());
  if (const auto found = find(rounded)) return found;
  if (extend(rounded)) return find(rounded);
  if (give_back_free_regions(rounded) && extend(rounded)) return find(rounded);
  return std::nullopt;
}

BlockId BfcAllocator::allocate_beyond(Bytes requested, int /*stream*/, Bytes /*spare*/) {
  const std::int64_t rounded = rounded_bytes(requested.value());
  if (regions_.empty()) {
    limit_ = rounded;
    next_region_ = rounded;
    add_region(rounded);
  } else {
    const Index last = std::prev(regions_.end())->second;
    const std::int64_t tail = chunks_[last].used ? 0 : chunks_[last].size;
    const std::int64_t lacking = rounded - tail;
    assert(lacking > 0);
    blocks::Block more;
    more.address = chunks_[last].address + chunks_[last].size;
    more.segment_begin = chunks_[last].segment_begin;
    more.size = lacking;
    more.previous = last;
    totals_.reserved += lacking;
    limit_ = std::max(limit_, totals_.reserved);
    next_address_ += lacking;
    const Index index = chunks_.add(more);
    chunks_[last].next = index;
    regions_[more.segment_begin] = index;
    insert_free(index);
  }
  const std::optional<BlockId> found = find(rounded);
  if (!found) throw_quantity_overflow();
  return *found;
}

// With its free neighbours; those leave the order of the search.
void BfcAllocator::insert_free(Index index) {
  for (const Index neighbour : {chunks_[index].previous, chunks_[index].next}) {
    if (neighbour == blocks::kNone || chunks_[neighbour].used) continue;
    free_.erase(key_of(neighbour));
    join(index, neighbour);
  }
  free_.insert(key_of(index));
}

void BfcAllocator::join(Index into, Index from) {
  blocks::Block& chunk = chunks_[into];
  const blocks::Block& gone = chunks_[from];
  if (chunk.previous == from) {
    chunk.address = gone.address;
    chunk.previous = gone.previous;
    if (chunk.previous != blocks::kNone) chunks_[chunk.previous].next = into;
  } else {
    chunk.next = gone.next;
    if (chunk.next == blocks::kNone) {
      regions_[chunk.segment_begin] = into;
    } else {
      chunks_[chunk.next].previous = into;
    }
  }
  chunk.size += gone.size;
  chunks_.remove(from);
}

void BfcAllocator::free(BlockId block) {
  if (block == 0) return;
  blocks::Block& its = chunk(block);
  assert(its.used);
  if (!its.retired) totals_.allocated -= its.size;
  its.used = its.retired = false;
  insert_free(static_cast<Index>(block - 1));
}

void BfcAllocator::retire(BlockId block) {
  if (block == 0) return;
  totals_.allocated -= chunk(block).size;
  chunk(block).retired = true;
}

Bytes BfcAllocator::size_of(BlockId block) const {
  return Bytes(block == 0 ? 0 : chunk(block).size);
}

std::int64_t BfcAllocator::address_of(BlockId block) const {
  return block == 0 ? 0 : chunk(block).address;
}

std::uint64_t BfcAllocator::fingerprint() const {
  Fingerprint print;
  for (const blocks::FreeKey& key : free_) {
    print.add(key.size());
    print.add(key.address);
  }
  print.add(totals_.reserved);
  print.add(next_region_);
  return print.value();
}

}  // namespace steelyard::vram
