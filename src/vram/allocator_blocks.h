// Where the simulated caching allocator keeps its blocks: one array of them, and per pool the
// ordered sets in which PyTorch looks for a free or unmapped one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory_resource>
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
    return std::tie(a.stream, a.size, a.address) < std::tie(b.stream, b.size, b.address);
  }
};
using FreeSet = std::pmr::set<FreeKey>;

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
  explicit Pool(std::pmr::memory_resource* memory) : free(memory), unmapped(memory) {}
  FreeSet free;
  std::pmr::set<UnmappedKey> unmapped;
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
  bool mapped = true;
  FreeSet::iterator place;  // in the pool's free set; meaningful only while the block is free there
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
