#include "vram/caching_allocator.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <limits>
#include <utility>
#include <vector>

#include "base/fingerprint.h"
#include "vram/allocator_blocks.h"

namespace steelyard::vram {

using blocks::Block;
using blocks::BlockStore;
using blocks::FreeKey;
using blocks::FreeSet;
using blocks::Index;
using blocks::kNone;
using blocks::Pool;
using blocks::PoolKind;

namespace {

// c10/cuda/CUDACachingAllocator.cpp of PyTorch 2.6: the constants of the same names.
constexpr std::int64_t kMinBlockSize = 512;
constexpr std::int64_t kSmallSize = std::int64_t{1} << 20;
constexpr std::int64_t kSmallBuffer = std::int64_t{2} << 20;
constexpr std::int64_t kLargeBuffer = std::int64_t{20} << 20;
constexpr std::int64_t kMinLargeAlloc = std::int64_t{10} << 20;
constexpr std::int64_t kRoundLarge = std::int64_t{2} << 20;

// A device "without a limit" still needs address ranges for expandable segments: 2^58 bytes leave
// room for eight (two pools, four streams) inside of 63 bits.
constexpr std::int64_t kUnlimitedDevice = std::int64_t{1} << 58;
constexpr std::int64_t kFirstAddress = std::int64_t{1} << 40;

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

// Expandable segments are mapped by pages.
std::int64_t page_size(PoolKind kind) {
  return kind == PoolKind::small ? kSmallBuffer : kLargeBuffer;
}

}  // namespace

class CachingAllocator::Implementation {
 public:
  explicit Implementation(AllocatorSettings settings)
      : settings_(settings),
        capacity_(settings.device_bytes ? settings.device_bytes->value() : kUnlimitedDevice),
        max_split_size_(settings.max_split_size ? settings.max_split_size->value()
                                                : std::numeric_limits<std::int64_t>::max()) {
    assert(capacity_ >= 0 && capacity_ <= kUnlimitedDevice);
  }

  Index allocate(std::int64_t requested, int stream);
  void free(Index index);
  void add_capacity(std::int64_t room) { capacity_ = reserved_ + round_up(room, kRoundLarge); }
  void retire(Index index) {
    allocated_ -= blocks_[index].size;
    blocks_[index].retired = true;
  }
  void empty_cache();

  [[nodiscard]] std::int64_t allocated() const { return allocated_; }
  [[nodiscard]] std::int64_t reserved() const { return reserved_; }
  [[nodiscard]] std::int64_t size_of(Index index) const { return blocks_[index].size; }
  [[nodiscard]] std::int64_t address_of(Index index) const { return blocks_[index].address; }
  [[nodiscard]] std::uint64_t fingerprint() const;

 private:
  [[nodiscard]] std::int64_t rounded(std::int64_t requested) const;
  Pool& pool_of(const Block& block) { return pool(block.pool); }
  Pool& pool(PoolKind kind) { return kind == PoolKind::small ? small_ : large_; }

  Index find_free(PoolKind kind, std::int64_t size, int stream);
  Index new_block(PoolKind kind, std::int64_t size, int stream);
  Index split(Index index, std::int64_t size);
  void merge(Index into, Index from);
  [[nodiscard]] bool may_split(const Block& block, std::int64_t size) const;

  void insert_free(Index index);
  void remove_free(Index index) { pool_of(blocks_[index]).free.erase(key_of(index)); }
  [[nodiscard]] FreeKey key_of(Index index) const {
    const Block& block = blocks_[index];
    return {block.stream, block.size, block.address, index};
  }
  void insert_unmapped(Index index);
  void remove_unmapped(Index index);

  bool release_oversize(PoolKind kind, std::int64_t size, int stream);
  void release_segment(Index index);

  [[nodiscard]] std::int64_t grown_size(Index index) const;
  Index expand(PoolKind kind, std::int64_t size, int stream);
  Index find_expandable(PoolKind kind, std::int64_t size, int stream);
  Index new_address_range(PoolKind kind, int stream);
  bool map(Index index, std::int64_t size);
  void unmap(Index index);
  Index cut(Index index, std::int64_t size);

  AllocatorSettings settings_;
  std::int64_t capacity_;
  std::int64_t max_split_size_;
  std::int64_t device_used_ = 0;
  std::int64_t allocated_ = 0;
  std::int64_t reserved_ = 0;
  std::int64_t next_address_ = kFirstAddress;
  BlockStore blocks_;
  Pool small_;
  Pool large_;
};

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
  if (requested > capacity_ + capacity_ / 8) {
    // Beyond every address range; PyTorch releases everything first.
    empty_cache();
    return kNone;
  }
  const std::int64_t size = rounded(requested);
  const PoolKind kind = size <= kSmallSize ? PoolKind::small : PoolKind::large;
  Index index = find_free(kind, size, stream);
  if (index == kNone) index = new_block(kind, size, stream);
  if (index == kNone && release_oversize(kind, size, stream)) index = new_block(kind, size, stream);
  if (index == kNone) {
    empty_cache();
    index = new_block(kind, size, stream);
  }
  if (index == kNone) return kNone;
  if (may_split(blocks_[index], size)) index = split(index, size);
  blocks_[index].used = true;
  allocated_ += blocks_[index].size;
  return index;
}

void CachingAllocator::Implementation::free(Index index) {
  Block& block = blocks_[index];
  assert(block.used);
  block.used = false;
  if (!std::exchange(block.retired, false)) allocated_ -= block.size;
  merge(index, block.previous);
  merge(index, block.next);
  insert_free(index);
}

// --- Best fit, split and merge
Index CachingAllocator::Implementation::find_free(PoolKind kind, std::int64_t size, int stream) {
  FreeSet& free = pool(kind).free;
  auto found = free.lower_bound({stream, size, 0, kNone});
  if (found == free.end() || found->stream != stream) return kNone;
  if (settings_.expandable_segments) {
    // A block before an unmapped range counts with all that it could grow to, so that it is spared.
    for (auto other = std::next(found); other != free.end() && other->stream == stream &&
                                        grown_size(other->block) < grown_size(found->block);
         ++other) {
      found = other;
    }
  }
  const Index index = found->block;
  const std::int64_t block_size = blocks_[index].size;
  if (size < max_split_size_ && block_size >= max_split_size_) return kNone;
  if (size >= max_split_size_ && block_size >= size + settings_.max_non_split_rounding.value()) {
    return kNone;
  }
  free.erase(found);
  return index;
}

bool CachingAllocator::Implementation::may_split(const Block& block, std::int64_t size) const {
  const std::int64_t rest = block.size - size;
  if (block.pool == PoolKind::small || settings_.expandable_segments) return rest >= kMinBlockSize;
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

void CachingAllocator::Implementation::merge(Index into, Index from) {
  if (from == kNone) return;
  Block& block = blocks_[into];
  const Block& gone = blocks_[from];
  if (gone.used || gone.mapped != block.mapped) return;
  if (gone.mapped) {
    remove_free(from);
  } else {
    remove_unmapped(from);
  }
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

// --- Segments of cudaMalloc
// A block in no set, at least `size` long.
Index CachingAllocator::Implementation::new_block(PoolKind kind, std::int64_t size, int stream) {
  if (settings_.expandable_segments) return expand(kind, size, stream);
  const std::int64_t bytes = segment_size(size);
  if (bytes > capacity_ - device_used_) return kNone;
  device_used_ += bytes;
  reserved_ += bytes;
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
  reserved_ -= blocks_[index].size;
  blocks_.remove(index);
}

// With max_split_size, blocks of at least that size are whole segments: release one that is large
// enough, or else the largest ones until their sum is. True when that much was released.
bool CachingAllocator::Implementation::release_oversize(PoolKind kind, std::int64_t size,
                                                        int stream) {
  if (!settings_.max_split_size || settings_.expandable_segments) return false;
  FreeSet& free = pool(kind).free;
  const std::int64_t wanted = std::max(size, max_split_size_);
  auto place = free.lower_bound({stream, wanted, 0, kNone});
  if (place != free.end() && place->stream == stream) {
    release_segment(place->block);
    return true;
  }
  std::int64_t released = 0;
  while (place != free.begin() && released < wanted) {
    --place;
    if (place->stream != stream || place->size < max_split_size_) break;
    released += place->size;
    release_segment(place->block);  // `place` is then the next one's
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

// --- Expandable segments: one address range per pool and stream, mapped page by page

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
  reserved_ += bytes;
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
  reserved_ -= end - begin;
  if (blocks_[unmapped].previous == kNone && blocks_[unmapped].next == kNone) {
    blocks_.remove(unmapped);  // a wholly unmapped range is given up
  } else {
    insert_unmapped(unmapped);
  }
}

std::uint64_t CachingAllocator::Implementation::fingerprint() const {
  Fingerprint print;
  print.add(device_used_);
  for (const Pool* pool : {&small_, &large_}) {
    for (const FreeKey& key : pool->free) {
      print.add(key.size + key.stream);  // sizes are multiples of 512
      print.add(key.address);
    }
    for (const auto& key : pool->unmapped) print.add(key.address);
  }
  return print.value();
}

// --- The public face
CachingAllocator::CachingAllocator(AllocatorSettings settings)
    : implementation_(std::make_unique<Implementation>(settings)) {}

CachingAllocator::~CachingAllocator() = default;

std::optional<BlockId> CachingAllocator::try_allocate(Bytes requested, int stream) {
  assert(requested.value() >= 0);
  if (requested.value() == 0) return BlockId{0};
  const Index index = implementation_->allocate(requested.value(), stream);
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

BlockId CachingAllocator::allocate_beyond(Bytes requested, int stream) {
  implementation_->add_capacity(segment_size(std::max(requested.value(), kSmallSize + 1)));
  return allocate(requested, stream);
}

void CachingAllocator::empty_cache() {
  implementation_->empty_cache();
}

Bytes CachingAllocator::allocated() const {
  return Bytes(implementation_->allocated());
}

Bytes CachingAllocator::reserved() const {
  return Bytes(implementation_->reserved());
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
