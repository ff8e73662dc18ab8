// What the simulated caching allocator keeps, for the two files that implement it: blocks of
// cudaMalloc's segments (caching_allocator.cpp) and of expandable ones (expandable_segments.cpp).
#pragma once

#include <cassert>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "vram/allocator_blocks.h"
#include "vram/caching_allocator.h"

namespace steelyard::vram {

using blocks::Block;
using blocks::BlockStore;
using blocks::FreeKey;
using blocks::FreeSet;
using blocks::Index;
using blocks::kNone;
using blocks::Part;
using blocks::Pool;
using blocks::PoolKind;

// c10/cuda/CUDACachingAllocator.cpp of PyTorch 2.6: the constants of the same names.
constexpr std::int64_t kSmallBuffer = std::int64_t{2} << 20;
constexpr std::int64_t kLargeBuffer = std::int64_t{20} << 20;

// A device "without a limit" still needs address ranges for expandable segments: 2^58 bytes leave
// room for eight (two pools, four streams) inside of 63 bits.
constexpr std::int64_t kUnlimitedDevice = std::int64_t{1} << 58;
constexpr std::int64_t kFirstAddress = std::int64_t{1} << 40;

class CachingAllocator::Implementation {
 public:
  Implementation(AllocatorSettings settings, Totals& totals)
      : settings_(settings),
        totals_(totals),
        capacity_(settings.device_bytes ? settings.device_bytes->value() : kUnlimitedDevice),
        max_split_size_(settings.max_split_size ? settings.max_split_size->value()
                                                : std::numeric_limits<std::int64_t>::max()) {
    assert(capacity_ >= 0 && capacity_ <= kUnlimitedDevice);
  }

  Index allocate(std::int64_t requested, int stream);
  Index allocate_on_device(std::int64_t requested,
                           int stream);  // release_cached_blocks, alloc_block
  void free(Index index);
  void add_capacity(std::int64_t room) { capacity_ = totals_.reserved + room; }
  // What a request takes of the device at most, as it is rounded and mapped.
  [[nodiscard]] std::int64_t room_for(std::int64_t requested) const;
  void retire(Index index) {
    totals_.allocated -= blocks_[index].size;
    blocks_[index].retired = true;
  }
  void empty_cache();

  [[nodiscard]] std::int64_t size_of(Index index) const { return blocks_[index].size; }
  [[nodiscard]] std::int64_t address_of(Index index) const { return blocks_[index].address; }
  [[nodiscard]] std::uint64_t fingerprint() const;

  // For who reads it as it is (experience.h); where `has_plain_blocks`.
  [[nodiscard]] bool has_plain_blocks() const {
    return !settings_.expandable_segments && !settings_.max_split_size;
  }
  [[nodiscard]] std::size_t block_count() const { return blocks_.size(); }
  [[nodiscard]] const Block& block(Index index) const { return blocks_[index]; }
  [[nodiscard]] const FreeSet& free_blocks(PoolKind kind) const {
    return kind == PoolKind::small ? small_.free : large_.free;
  }
  [[nodiscard]] std::int64_t rounded(std::int64_t requested) const;
  [[nodiscard]] static PoolKind pool_for(std::int64_t size);
  [[nodiscard]] bool leaves_rest(PoolKind kind, std::int64_t block, std::int64_t size) const;
  // Blocks side by side, by address, become others of the same size together; `made` are those.
  void rewrite(const std::vector<Index>& old, const Part* parts, std::size_t count, Index* made);

 private:
  Pool& pool_of(const Block& block) { return pool(block.pool); }
  Pool& pool(PoolKind kind) { return kind == PoolKind::small ? small_ : large_; }

  std::optional<FreeSet::iterator> find_free(PoolKind kind, std::int64_t size, int stream);
  Index take_free(PoolKind kind, const FreeSet::iterator& place, std::int64_t size);
  Index new_block(PoolKind kind, std::int64_t size, int stream);
  Index split(Index index, std::int64_t size);
  Index use(Index index);
  [[nodiscard]] bool may_merge(const Block& block, Index from) const;
  void merge(Index into, Index from);
  void join(Index into, Index from);
  [[nodiscard]] bool may_split(const Block& block, std::int64_t size) const {
    return leaves_rest(block.pool, block.size, size);
  }

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
  Totals& totals_;  // of the public face
  std::int64_t capacity_;
  std::int64_t max_split_size_;
  std::int64_t device_used_ = 0;
  std::int64_t next_address_ = kFirstAddress;
  BlockStore blocks_;
  Pool small_;
  Pool large_;
};

}  // namespace steelyard::vram
