// The free blocks of a pool in the order in which PyTorch looks for one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
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

// A sorted array: an allocator has some ten to some hundred free blocks, which move faster than a
// tree balances. Where experts leave thousands, an array of such arrays.
class FreeSet {
 public:
  // No array is longer; one that would be is halved.
  static constexpr std::size_t kLongest = 512;

  // Good until the next change of the set.
  class iterator {
   public:
    using iterator_category = std::bidirectional_iterator_tag;
    using value_type = FreeKey;
    using difference_type = std::ptrdiff_t;
    using pointer = const FreeKey*;
    using reference = const FreeKey&;

    iterator() = default;
    [[nodiscard]] const FreeKey& operator*() const { return set_->parts_[part_][at_]; }
    [[nodiscard]] const FreeKey* operator->() const { return &**this; }
    iterator& operator++() {
      ++at_;
      settle();
      return *this;
    }
    iterator operator++(int) {
      const iterator before = *this;
      ++*this;
      return before;
    }
    iterator& operator--() {
      if (at_ == 0) at_ = set_->parts_[--part_].size();
      --at_;
      return *this;
    }
    iterator operator--(int) {
      const iterator before = *this;
      --*this;
      return before;
    }
    friend bool operator==(const iterator& a, const iterator& b) {
      return a.part_ == b.part_ && a.at_ == b.at_;
    }

   private:
    friend class FreeSet;
    iterator(const FreeSet* set, std::size_t part, std::size_t at)
        : set_(set), part_(part), at_(at) {
      settle();
    }
    // Behind the last of an array that is not the last one: the first of the next.
    void settle() {
      if (at_ == set_->parts_[part_].size() && part_ + 1 < set_->parts_.size()) {
        ++part_;
        at_ = 0;
      }
    }
    const FreeSet* set_ = nullptr;
    std::size_t part_ = 0, at_ = 0;
  };

  [[nodiscard]] iterator begin() const { return {this, 0, 0}; }
  [[nodiscard]] iterator end() const { return {this, parts_.size() - 1, parts_.back().size()}; }
  [[nodiscard]] std::size_t size() const { return size_; }

  // Half of all answers of a search are a surprise to the processor: no branch depends on them.
  [[nodiscard]] iterator lower_bound(const FreeKey& key) const {
    return first_not([&key](const FreeKey& each) {
      return (each.order < key.order) |
             (static_cast<int>(each.order == key.order) & (each.address < key.address));
    });
  }
  // The first one of at least that size, of that stream or a later one.
  [[nodiscard]] iterator from(int stream, std::int64_t size) const {
    const std::uint64_t wanted = FreeKey(stream, size, 0, kNone).order;
    return first_not([wanted](const FreeKey& each) { return each.order < wanted; });
  }

  void insert(const FreeKey& key) {
    const iterator place = lower_bound(key);
    Part& part = parts_[place.part_];
    part.insert(part.begin() + static_cast<std::ptrdiff_t>(place.at_), key);
    ++size_;
    if (part.size() > kLongest) halve(place.part_);
  }
  void erase(const iterator& place) {
    Part& part = parts_[place.part_];
    part.erase(part.begin() + static_cast<std::ptrdiff_t>(place.at_));
    --size_;
    if (part.empty() && parts_.size() > 1) {
      parts_.erase(parts_.begin() + static_cast<std::ptrdiff_t>(place.part_));
    }
  }
  void erase(const FreeKey& key) { erase(lower_bound(key)); }
  // The key at that place goes, the new one comes: only what lies between them moves.
  void replace(const iterator& place, const FreeKey& key) {
    const iterator next = lower_bound(key);
    if (next.part_ != place.part_) {
      erase(place);
      insert(key);
      return;
    }
    Part& part = parts_[place.part_];
    const auto old = part.begin() + static_cast<std::ptrdiff_t>(place.at_);
    const auto to = part.begin() + static_cast<std::ptrdiff_t>(next.at_);
    if (*old < key) {
      std::move(old + 1, to, old);
      *(to - 1) = key;
    } else {
      std::move_backward(to, old, old + 1);
      *to = key;
    }
  }

 private:
  using Part = std::vector<FreeKey>;

  template <class Below>
  [[nodiscard]] iterator first_not(const Below& below) const {
    std::size_t part = 0;
    std::size_t parts = parts_.size() - 1;  // the last one takes what no other does
    while (parts > 0) {
      const std::size_t half = parts / 2;
      if (below(parts_[part + half].back())) {
        part += half + 1;
        parts -= half + 1;
      } else {
        parts = half;
      }
    }
    const FreeKey* first = parts_[part].data();
    std::size_t count = parts_[part].size();
    while (count > 0) {
      const std::size_t half = count / 2;
      first += below(first[half]) ? count - half : 0;
      count = half;
    }
    return {this, part, static_cast<std::size_t>(first - parts_[part].data())};
  }
  void halve(std::size_t index) {
    const auto middle = static_cast<std::ptrdiff_t>(parts_[index].size() / 2);
    Part upper(parts_[index].begin() + middle, parts_[index].end());
    parts_[index].erase(parts_[index].begin() + middle, parts_[index].end());
    parts_.insert(parts_.begin() + static_cast<std::ptrdiff_t>(index) + 1, std::move(upper));
  }

  std::vector<Part> parts_ = std::vector<Part>(1);  // none is empty but an only one
  std::size_t size_ = 0;
};

}  // namespace steelyard::vram::blocks
