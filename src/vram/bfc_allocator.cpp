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
std::optional<BfcAllocator::Address> BfcAllocator::find(std::int64_t rounded) {
  const auto best = free_.lower_bound({rounded, 0});
  if (best == free_.end()) return std::nullopt;
  const Address address = best->second;
  free_.erase(best);
  const auto found = chunks_.find(address);
  Chunk& chunk = found->second;
  chunk.used = true;  // before the rest lies beside it: free neighbours merge
  const std::int64_t rest = chunk.size - rounded;
  if (chunk.size >= 2 * rounded || rest >= kMaxInternalFragmentation) {
    chunk.size = rounded;
    insert_free(chunks_.emplace(address + rounded, Chunk{rest, chunk.region}).first);
  }
  totals_.allocated += chunk.size;
  return address;
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
  const Address begin = next_address_;
  next_address_ = checked_add(begin, checked_add(bytes, kBetweenRegions));
  totals_.reserved += bytes;
  insert_free(chunks_.emplace(begin, Chunk{bytes, begin}).first);
}

bool BfcAllocator::give_back_free_regions(std::int64_t rounded) {
  if (!settings_.garbage_collection) return false;
  if (rounded > limit_ - totals_.allocated) return false;
  // Neighbours that are free have merged: a region without a live chunk is one chunk.
  const auto whole = [this](Chunks::iterator chunk) {
    const auto next = std::next(chunk);
    return chunk->first == chunk->second.region &&
           (next == chunks_.end() || next->second.region != chunk->second.region);
  };
  std::vector<Chunks::iterator> regions;
  std::int64_t free = 0;
  for (const auto& [size, address] : free_) {
    const auto chunk = chunks_.find(address);
    if (!whole(chunk)) continue;
    free += size;
    regions.push_back(chunk);
  }
  if (free == 0 || rounded > limit_ - totals_.reserved + free) return false;
  for (const auto chunk : regions) {
    totals_.reserved -= chunk->second.size;
    free_.erase({chunk->second.size, chunk->first});
    chunks_.erase(chunk);
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
  if (chunks_.empty()) {
    limit_ = rounded;
    next_region_ = rounded;
    add_region(rounded);
  } else {
    const auto last = std::prev(chunks_.end());
    const std::int64_t tail = last->second.used ? 0 : last->second.size;
    const std::int64_t lacking = rounded - tail;
    assert(lacking > 0);
    const Address end = last->first + last->second.size;
    totals_.reserved += lacking;
    limit_ = std::max(limit_, totals_.reserved);
    next_address_ += lacking;
    insert_free(chunks_.emplace(end, Chunk{lacking, last->second.region}).first);
  }
  const std::optional<Address> found = find(rounded);
  if (!found) throw_quantity_overflow();
  return *found;
}

void BfcAllocator::insert_free(Chunks::iterator chunk) {
  chunk = merged(chunk);
  free_.emplace(chunk->second.size, chunk->first);
}

// With its free neighbours of the same region; those leave the order of the search.
BfcAllocator::Chunks::iterator BfcAllocator::merged(Chunks::iterator chunk) {
  const auto joins = [](const Chunk& a, const Chunk& b) {
    return !a.used && !b.used && a.region == b.region;
  };
  if (const auto next = std::next(chunk);
      next != chunks_.end() && joins(chunk->second, next->second)) {
    free_.erase({next->second.size, next->first});
    chunk->second.size += next->second.size;
    chunks_.erase(next);
  }
  if (chunk == chunks_.begin()) return chunk;
  const auto previous = std::prev(chunk);
  if (!joins(previous->second, chunk->second)) return chunk;
  free_.erase({previous->second.size, previous->first});
  previous->second.size += chunk->second.size;
  chunks_.erase(chunk);
  return previous;
}

void BfcAllocator::free(BlockId block) {
  if (block == 0) return;
  const auto chunk = chunks_.find(block);
  assert(chunk != chunks_.end() && chunk->second.used);
  if (!chunk->second.retired) totals_.allocated -= chunk->second.size;
  chunk->second.used = false;
  chunk->second.retired = false;
  insert_free(chunk);
}

void BfcAllocator::retire(BlockId block) {
  if (block == 0) return;
  Chunk& chunk = chunks_.at(block);
  totals_.allocated -= chunk.size;
  chunk.retired = true;
}

Bytes BfcAllocator::size_of(BlockId block) const {
  return Bytes(block == 0 ? 0 : chunks_.at(block).size);
}

std::uint64_t BfcAllocator::fingerprint() const {
  Fingerprint print;
  for (const auto& [size, address] : free_) {
    print.add(size);
    print.add(address);
  }
  print.add(totals_.reserved);
  print.add(next_region_);
  return print.value();
}

}  // namespace steelyard::vram
