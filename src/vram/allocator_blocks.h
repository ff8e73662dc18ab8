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

// The order in which PyTorch looks for a free block (BlockComparatorSize): stream, size, address.
// The first two are one number, so that a comparison is cheap.
struct FreeKey {
  static constexpr int kSizeBits = 59;  // no device has more than 2^58 bytes

  FreeKey(int stream, std::int64_t size, std::int64_t at, Index index)
      : order((static_cast<std::uint64_t>(stream) << kSizeBits) + static_cast<std::uint64_t>(size)),
        address(at),
        block(index) {}

  std::uint64_t order;
  std::int64_t address;
  Index block;

  [[nodiscard]] int stream() const { return static_cast<int>(order >> kSizeBits); }
  [[nodiscard]] std::int64_t size() const {
    return static_cast<std::int64_t>(order & ((std::uint64_t{1} << kSizeBits) - 1));
  }
  friend bool operator<(const FreeKey& a, const FreeKey& b) {
    return a.order < b.order || (a.order == b.order && a.address < b.address);
  }
};

// The free blocks in that order. A sorted array: an allocator has some ten to some hundred of them,
// which move faster than a tree balances.
class FreeSet {
 public:
  using iterator = std::vector<FreeKey>::const_iterator;
  using Place = std::ptrdiff_t;  // of a key in the order

  [[nodiscard]] iterator begin() const { return keys_.begin(); }
  [[nodiscard]] iterator end() const { return keys_.end(); }
  [[nodiscard]] std::size_t size() const { return keys_.size(); }
  // Half of all answers of a search are a surprise to the processor: no branch depends on them.
  [[nodiscard]] iterator lower_bound(const FreeKey& key) const {
    const FreeKey* first = keys_.data();
    std::size_t count = keys_.size();
    while (count > 0) {
      const std::size_t half = count / 2;
      const FreeKey& middle = first[half];
      const bool below = (middle.order < key.order) |
                         ((middle.order == key.order) & (middle.address < key.address));
      first += below ? count - half : 0;
      count = half;
    }
    return keys_.begin() + (first - keys_.data());
  }
  // The first one of at least that size, of that stream or a later one.
  [[nodiscard]] iterator from(int stream, std::int64_t size) const {
    const std::uint64_t wanted = FreeKey(stream, size, 0, kNone).order;
    const FreeKey* first = keys_.data();
    std::size_t count = keys_.size();
    while (count > 0) {
      const std::size_t half = count / 2;
      first += first[half].order < wanted ? count - half : 0;
      count = half;
    }
    return keys_.begin() + (first - keys_.data());
  }
  [[nodiscard]] Place place_of(const FreeKey& key) const { return lower_bound(key) - begin(); }
  void insert(const FreeKey& key) { keys_.insert(lower_bound(key), key); }
  void erase(Place place) { keys_.erase(keys_.begin() + place); }
  void erase(const FreeKey& key) { keys_.erase(lower_bound(key)); }
  // The key at that place goes, the new one comes: only what lies between them moves.
  void replace(Place place, const FreeKey& key) {
    const auto old = keys_.begin() + place;
    if (*old < key) {
      const auto to = keys_.begin() + place_of(key);
      std::move(old + 1, to, old);
      *(to - 1) = key;
    } else {
      const auto to = keys_.begin() + place_of(key);
      std::move_backward(to, old, old + 1);
      *to = key;
    }
  }

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
