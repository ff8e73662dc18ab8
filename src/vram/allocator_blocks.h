// Where the simulated caching allocator keeps its blocks: one array of them, and per pool the
// ordered sets in which PyTorch looks for a free or unmapped one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <tuple>
#include <vector>

namespace steelyard::vram::blocks {

using Index = std::int32_t;  // of a block in the store
constexpr Index kNone = -1;

// The order in which PyTorch looks for a free block (BlockComparatorSize).
struct FreeKey {
  int stream;
  std::int64_t size;
  std::int64_t address;
  Index block;

  friend bool operator<(const FreeKey& a, const FreeKey& b) {
    if (a.size != b.size && a.stream == b.stream) return a.size < b.size;
    return std::tie(a.stream, a.size, a.address) < std::tie(b.stream, b.size, b.address);
  }
};

// The free blocks in that order. A sorted array: an allocator has some ten to some hundred of them,
// which move faster than a tree balances.
class FreeSet {
 public:
  using iterator = std::vector<FreeKey>::const_iterator;

  [[nodiscard]] iterator begin() const { return keys_.begin(); }
  [[nodiscard]] iterator end() const { return keys_.end(); }
  [[nodiscard]] std::size_t size() const { return keys_.size(); }
  [[nodiscard]] iterator lower_bound(const FreeKey& key) const {
    return std::lower_bound(keys_.begin(), keys_.end(), key);
  }
  void insert(const FreeKey& key) { keys_.insert(lower_bound(key), key); }
  // The place of the next block, which stays a valid iterator.
  iterator erase(iterator at) { return keys_.erase(at); }
  void erase(const FreeKey& key) { keys_.erase(lower_bound(key)); }

 private:
  std::vector<FreeKey> keys_;
};

// Unmapped ranges of expandable segments (BlockComparatorAddress).
struct UnmappedKey {
  int stream;
  std::int64_t address;
  Index block;

  friend bool operator<(const UnmappedKey& a, const UnmappedKey& b) {
    return std::tie(a.stream, a.address) < std::tie(b.stream, b.address);
  }
};

struct Pool {
  FreeSet free;
  std::set<UnmappedKey> unmapped;
};

enum class PoolKind : std::uint8_t { small, large };

// A range of device addresses. Neighbours are of the same segment.
struct Block {
  std::int64_t address = 0;
  std::int64_t size = 0;
  std::int64_t segment_begin = 0;
  Index previous = kNone;
  Index next = kNone;
  int stream = 0;
  PoolKind pool = PoolKind::large;
  bool used = false;
  bool retired = false;  // freed, but another stream may still use it
  bool mapped = true;
};

// Blocks in one array; a released block's slot is used again.
class BlockStore {
 public:
  Index add(const Block& block) {
    if (vacant_.empty()) {
      blocks_.push_back(block);
      return static_cast<Index>(blocks_.size() - 1);
    }
    const Index index = vacant_.back();
    vacant_.pop_back();
    (*this)[index] = block;
    return index;
  }
  void remove(Index index) { vacant_.push_back(index); }
  Block& operator[](Index index) { return blocks_[static_cast<std::size_t>(index)]; }
  const Block& operator[](Index index) const { return blocks_[static_cast<std::size_t>(index)]; }

 private:
  std::vector<Block> blocks_;
  std::vector<Index> vacant_;
};

}  // namespace steelyard::vram::blocks
