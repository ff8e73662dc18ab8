#include "vram/caching_allocator.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <utility>
#include <vector>

#include "base/fingerprint.h"
#include "vram/allocator_implementation.h"

namespace steelyard::vram {

namespace {

// c10/cuda/CUDACachingAllocator.cpp of PyTorch 2.6: the constants of the same names.
constexpr std::int64_t kMinBlockSize = 512;
constexpr std::int64_t kSmallSize = std::int64_t{1} << 20;
constexpr std::int64_t kMinLargeAlloc = std::int64_t{10} << 20;
constexpr std::int64_t kRoundLarge = std::int64_t{2} << 20;

int floor_log2(std::int64_t n) {
  return static_cast<int>(std::bit_width(static_cast<std::uint64_t>(n))) - 1;
}

// roundup_power2_next_division: `divisions` equal steps between powers of two.
std::int64_t round_to_division(std::int64_t size, std::int64_t divisions) {
  const std::int64_t floor = std::int64_t{1} << floor_log2(size);
  if (floor == size) return size;
  const std::int64_t step = floor >> floor_log2(divisions);
  return step == 0 ? floor << 1 : round_up(size, step);
}

// What a request of `rounded` bytes asks of cudaMalloc.
std::int64_t segment_size(std::int64_t rounded) {
  if (rounded <= kSmallSize) return kSmallBuffer;
  return rounded < kMinLargeAlloc ? kLargeBuffer : round_up(rounded, kRoundLarge);
}

}  // namespace

std::int64_t CachingAllocator::Implementation::rounded(std::int64_t requested) const {
  if (requested < kMinBlockSize) return kMinBlockSize;
  const int interval = std::clamp(floor_log2(requested) - 20, 0, int{kRoundupIntervals} - 1);
  const std::int64_t own = settings_.roundup_by_interval[static_cast<std::size_t>(interval)];
  const std::int64_t divisions = own != 0 ? own : settings_.roundup_power2_divisions;
  if (divisions > 1 && requested > kMinBlockSize * divisions) {
    return round_to_division(requested, divisions);
  }
  return round_up(requested, kMinBlockSize);
}

Index CachingAllocator::Implementation::allocate(std::int64_t requested, int stream) {
  if (requested > capacity_ + capacity_ / 8) return allocate_on_device(requested, stream);
  const std::int64_t size = rounded(requested);
  const PoolKind kind = pool_for(size);
  if (const auto place = find_free(kind, size, stream)) return take_free(kind, *place, size);
  Index index = new_block(kind, size, stream);
  if (index == kNone && release_oversize(kind, size, stream)) index = new_block(kind, size, stream);
  if (index == kNone) return allocate_on_device(requested, stream);
  if (may_split(blocks_[index], size)) index = split(index, size);
  return use(index);
}

Index CachingAllocator::Implementation::allocate_on_device(std::int64_t requested, int stream) {
  empty_cache();
  if (requested > capacity_ + capacity_ / 8) return kNone;  // beyond every address range
  const std::int64_t size = rounded(requested);
  Index index = new_block(pool_for(size), size, stream);
  if (index == kNone) return kNone;
  if (may_split(blocks_[index], size)) index = split(index, size);
  return use(index);
}

void CachingAllocator::Implementation::free(Index index) {
  Block& block = blocks_[index];
  assert(block.used);
  block.used = false;
  if (!std::exchange(block.retired, false)) totals_.allocated -= block.size;
  // What it merges with is in the free blocks already: one of them gives its place to the whole.
  FreeSet& free = pool_of(block).free;
  std::optional<FreeKey> place;
  for (const Index neighbour : {block.previous, block.next}) {
    if (!may_merge(block, neighbour)) continue;
    const FreeKey its = key_of(neighbour);
    join(index, neighbour);
    if (place) {
      free.erase(its);
    } else {
      place = its;
    }
  }
  if (place) {
    free.replace(free.lower_bound(*place), key_of(index));
  } else {
    free.insert(key_of(index));
  }
}

// --- Best fit, split and merge
std::optional<FreeSet::iterator> CachingAllocator::Implementation::find_free(PoolKind kind,
                                                                             std::int64_t size,
                                                                             int stream) {
  const FreeSet& free = pool(kind).free;
  auto found = free.from(stream, size);
  if (found == free.end() || found->stream() != stream) return {};
  if (settings_.expandable_segments) {
    // A block before an unmapped range counts with all that it could grow to, so that it is spared.
    for (auto other = std::next(found); other != free.end() && other->stream() == stream &&
                                        grown_size(other->block) < grown_size(found->block);
         ++other) {
      found = other;
    }
  }
  const std::int64_t block_size = found->size();
  if (size < max_split_size_ && block_size >= max_split_size_) return {};
  if (size >= max_split_size_ && block_size >= size + settings_.max_non_split_rounding.value()) {
    return {};
  }
  return found;
}

// A free block for `size` bytes; what it has more may stay free in its place.
Index CachingAllocator::Implementation::take_free(PoolKind kind, const FreeSet::iterator& place,
                                                  std::int64_t size) {
  FreeSet& free = pool(kind).free;
  const Index index = place->block;
  if (!may_split(blocks_[index], size)) {
    free.erase(place);
    return use(index);
  }
  const Index low = cut(index, size);
  free.replace(place, key_of(index));
  return use(low);
}

Index CachingAllocator::Implementation::use(Index index) {
  blocks_[index].used = true;
  totals_.allocated += blocks_[index].size;
  return index;
}

PoolKind CachingAllocator::Implementation::pool_for(std::int64_t size) {
  return size <= kSmallSize ? PoolKind::small : PoolKind::large;
}

bool CachingAllocator::Implementation::leaves_rest(PoolKind kind, std::int64_t block,
                                                   std::int64_t size) const {
  const std::int64_t rest = block - size;
  if (kind == PoolKind::small || settings_.expandable_segments) return rest >= kMinBlockSize;
  return size < max_split_size_ && rest > kSmallSize;
}

// The low `size` bytes as a block of their own, which is returned; the rest keeps the index and
// goes to the free blocks.
Index CachingAllocator::Implementation::split(Index index, std::int64_t size) {
  const Index low = cut(index, size);
  insert_free(index);
  return low;
}

// Takes the low `size` bytes off a block that is in no set; both parts are in no set afterwards.
Index CachingAllocator::Implementation::cut(Index index, std::int64_t size) {
  Block part = blocks_[index];
  part.size = size;
  part.next = index;
  const Index low = blocks_.add(part);
  if (part.previous != kNone) blocks_[part.previous].next = low;
  Block& rest = blocks_[index];
  rest.previous = low;
  rest.address += size;
  rest.size -= size;
  return low;
}

bool CachingAllocator::Implementation::may_merge(const Block& block, Index from) const {
  return from != kNone && !blocks_[from].used && blocks_[from].mapped == block.mapped;
}

void CachingAllocator::Implementation::merge(Index into, Index from) {
  if (!may_merge(blocks_[into], from)) return;
  if (blocks_[from].mapped) {
    remove_free(from);
  } else {
    remove_unmapped(from);
  }
  join(into, from);
}

// `from`, in no set any more or about to leave it, becomes a part of its neighbour.
void CachingAllocator::Implementation::join(Index into, Index from) {
  Block& block = blocks_[into];
  const Block& gone = blocks_[from];
  if (block.previous == from) {
    block.address = gone.address;
    block.previous = gone.previous;
    if (block.previous != kNone) blocks_[block.previous].next = into;
  } else {
    block.next = gone.next;
    if (block.next != kNone) blocks_[block.next].previous = into;
  }
  block.size += gone.size;
  blocks_.remove(from);
}

void CachingAllocator::Implementation::insert_free(Index index) {
  pool_of(blocks_[index]).free.insert(key_of(index));
}

void CachingAllocator::Implementation::insert_unmapped(Index index) {
  const Block& block = blocks_[index];
  pool_of(block).unmapped.insert({block.stream, block.address, index});
}

void CachingAllocator::Implementation::remove_unmapped(Index index) {
  const Block& at = blocks_[index];
  pool_of(at).unmapped.erase({at.stream, at.address, index});
}

void CachingAllocator::Implementation::rewrite(const std::vector<Index>& old, const Part* parts,
                                               std::size_t count, Index* made) {
  const Block first = blocks_[old.front()];
  const Index behind = blocks_[old.back()].next;
  FreeSet& free = pool(first.pool).free;
  for (const Index index : old) {
    if (blocks_[index].used) {
      totals_.allocated -= blocks_[index].size;
    } else {
      remove_free(index);
    }
  }
  Block block = first;
  for (std::size_t i = 0; i < count; ++i) {
    block.size = parts[i].size;
    block.used = parts[i].used;
    block.next = behind;
    Index index = kNone;
    if (i < old.size()) {
      index = old[i];
      blocks_[index] = block;
    } else {
      index = blocks_.add(block);
    }
    if (block.previous != kNone) blocks_[block.previous].next = index;
    if (block.used) {
      totals_.allocated += block.size;
    } else {
      free.insert(key_of(index));
    }
    block.address += block.size;
    block.previous = made[i] = index;
  }
  if (behind != kNone) blocks_[behind].previous = made[count - 1];
  for (std::size_t i = count; i < old.size(); ++i) blocks_.remove(old[i]);
}

// --- Segments of cudaMalloc
// A block in no set, at least `size` long.
Index CachingAllocator::Implementation::new_block(PoolKind kind, std::int64_t size, int stream) {
  if (settings_.expandable_segments) return expand(kind, size, stream);
  const std::int64_t bytes = segment_size(size);
  if (bytes > capacity_ - device_used_) return kNone;
  device_used_ += bytes;
  totals_.reserved += bytes;
  Block block;
  block.address = block.segment_begin = next_address_;
  block.size = bytes;
  block.stream = stream;
  block.pool = kind;
  next_address_ += bytes;
  return blocks_.add(block);
}

void CachingAllocator::Implementation::release_segment(Index index) {
  remove_free(index);
  device_used_ -= blocks_[index].size;
  totals_.reserved -= blocks_[index].size;
  blocks_.remove(index);
}

// With max_split_size, blocks of at least that size are whole segments: release one that is large
// enough, or else the largest ones until their sum is. True when that much was released.
bool CachingAllocator::Implementation::release_oversize(PoolKind kind, std::int64_t size,
                                                        int stream) {
  if (!settings_.max_split_size || settings_.expandable_segments) return false;
  FreeSet& free = pool(kind).free;
  const std::int64_t wanted = std::max(size, max_split_size_);
  const FreeKey least(stream, wanted, 0, kNone);
  const auto enough = free.lower_bound(least);
  if (enough != free.end() && enough->stream() == stream) {
    release_segment(enough->block);
    return true;
  }
  std::int64_t released = 0;
  while (released < wanted) {
    auto largest = free.lower_bound(least);
    if (largest == free.begin()) break;
    --largest;
    if (largest->stream() != stream || largest->size() < max_split_size_) break;
    released += largest->size();
    release_segment(largest->block);
  }
  return released >= wanted;
}

void CachingAllocator::Implementation::empty_cache() {
  for (Pool* each : {&large_, &small_}) {
    std::vector<Index> free;
    free.reserve(each->free.size());
    for (const FreeKey& key : each->free) free.push_back(key.block);
    for (const Index index : free) {
      if (settings_.expandable_segments) {
        unmap(index);
      } else if (blocks_[index].previous == kNone && blocks_[index].next == kNone) {
        release_segment(index);
      }
    }
  }
}

std::uint64_t CachingAllocator::Implementation::fingerprint() const {
  Fingerprint print;
  print.add(device_used_);
  print.add(capacity_);
  for (const Pool* pool : {&small_, &large_}) {
    for (const FreeKey& key : pool->free) {
      print.add(static_cast<std::int64_t>(key.order));
      print.add(key.address);
    }
    for (const auto& key : pool->unmapped) print.add(key.address);
  }
  return print.value();
}

// --- The public face
CachingAllocator::CachingAllocator(AllocatorSettings settings)
    : implementation_(std::make_unique<Implementation>(settings, totals_)) {}

CachingAllocator::~CachingAllocator() = default;

std::optional<BlockId> CachingAllocator::try_allocate(Bytes requested, int stream) {
  assert(requested.value() >= 0);
  if (requested.value() == 0) return BlockId{0};
  const Index index = implementation_->allocate(requested.value(), stream);
  if (index == kNone) return std::nullopt;
  return BlockId{index} + 1;
}

std::optional<BlockId> CachingAllocator::try_device(Bytes requested, int stream) {
  assert(requested.value() > 0);
  const Index index = implementation_->allocate_on_device(requested.value(), stream);
  if (index == kNone) return std::nullopt;
  return BlockId{index} + 1;
}

BlockId CachingAllocator::allocate(Bytes requested, int stream) {
  const std::optional<BlockId> block = try_allocate(requested, stream);
  if (!block) throw_quantity_overflow();
  return *block;
}

void CachingAllocator::free(BlockId block) {
  if (block != 0) implementation_->free(static_cast<Index>(block - 1));
}

void CachingAllocator::retire(BlockId block) {
  if (block != 0) implementation_->retire(static_cast<Index>(block - 1));
}

std::int64_t CachingAllocator::Implementation::room_for(std::int64_t requested) const {
  const std::int64_t segment = segment_size(std::max(rounded(requested), kSmallSize + 1));
  return settings_.expandable_segments ? round_up(segment, kLargeBuffer) : segment;  // whole pages
}

BlockId CachingAllocator::allocate_beyond(Bytes requested, int stream, Bytes spare) {
  const std::int64_t room = implementation_->room_for(requested.value());
  implementation_->add_capacity(round_up(std::max(room, spare.value()), kRoundLarge));
  return allocate(requested, stream);
}

void CachingAllocator::empty_cache() {
  implementation_->empty_cache();
}

Bytes CachingAllocator::size_of(BlockId block) const {
  return Bytes(block == 0 ? 0 : implementation_->size_of(static_cast<Index>(block - 1)));
}

std::uint64_t CachingAllocator::fingerprint() const {
  return implementation_->fingerprint();
}

std::int64_t CachingAllocator::address_of(BlockId block) const {
  return block == 0 ? 0 : implementation_->address_of(static_cast<Index>(block - 1));
}

}  // namespace steelyard::vram
