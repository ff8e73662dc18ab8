// Where the simulated caching allocator keeps its blocks: one array of them, and per pool the
// ordered sets in which PyTorch looks for a free or unmapped one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <tuple>
#include <vector>

#include "vram/free_set.h"

namespace steelyard::vram::blocks {

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

// Of what some blocks side by side become.
struct Part {
  std::int64_t size = 0;
  bool used = false;
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
  [[nodiscard]] std::size_t size() const { return blocks_.size(); }
  void remove(Index index) { vacant_.push_back(index); }
  Block& operator[](Index index) { return blocks_[static_cast<std::size_t>(index)]; }
  const Block& operator[](Index index) const { return blocks_[static_cast<std::size_t>(index)]; }

 private:
  std::vector<Block> blocks_;
  std::vector<Index> vacant_;
};

}  // namespace steelyard::vram::blocks
