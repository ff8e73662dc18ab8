// The free blocks of a pool in the order in which PyTorch looks for one.
#pragma once

#include <algorithm>
#include <bit>
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

// Sorted arrays, one for each eighth of a power of two of sizes: most blocks are of few sizes, and
// what comes and goes lies close by. Where experts leave thousands of a size, arrays of arrays.
class FreeSet {
  using Part = std::vector<FreeKey>;
  using Bin = std::vector<Part>;  // sorted; no part of it is empty but an only one

 public:
  // No array is longer; one that would be is halved.
  static constexpr std::size_t kLongest = 128;

  // Good until the next change of the set.
  class iterator {
   public:
    using iterator_category = std::bidirectional_iterator_tag;
    using value_type = FreeKey;
    using difference_type = std::ptrdiff_t;
    using pointer = const FreeKey*;
    using reference = const FreeKey&;

    iterator() = default;
    [[nodiscard]] const FreeKey& operator*() const { return *key_; }
    [[nodiscard]] const FreeKey* operator->() const { return key_; }
    iterator& operator++() {
      const Bin& bin = set_->bins_[bin_];
      if (at_ + 1 < bin[part_].size()) return *this = {set_, bin_, part_, at_ + 1};
      if (part_ + 1 < bin.size()) return *this = {set_, bin_, part_ + 1, 0};
      return *this = set_->first_from(bin_ + 1);
    }
    iterator operator++(int) {
      const iterator before = *this;
      ++*this;
      return before;
    }
    iterator& operator--() {
      if (at_ > 0) return *this = {set_, bin_, part_, at_ - 1};
      if (part_ > 0) {
        return *this = {set_, bin_, part_ - 1, set_->bins_[bin_][part_ - 1].size() - 1};
      }
      do {
        --bin_;
      } while (!set_->is_filled(bin_));
      const Bin& bin = set_->bins_[bin_];
      return *this = {set_, bin_, bin.size() - 1, bin.back().size() - 1};
    }
    iterator operator--(int) {
      const iterator before = *this;
      --*this;
      return before;
    }
    friend bool operator==(const iterator& a, const iterator& b) { return a.key_ == b.key_; }

   private:
    friend class FreeSet;
    iterator(const FreeSet* set, std::size_t bin, std::size_t part, std::size_t at)
        : set_(set), bin_(bin), part_(part), at_(at) {
      if (bin < set->bins_.size()) key_ = &set->bins_[bin][part][at];
    }
    const FreeSet* set_ = nullptr;
    const FreeKey* key_ = nullptr;  // none: the end
    std::size_t bin_ = 0, part_ = 0, at_ = 0;
  };

  [[nodiscard]] iterator begin() const { return first_from(0); }
  [[nodiscard]] iterator end() const { return {this, bins_.size(), 0, 0}; }
  [[nodiscard]] std::size_t size() const { return size_; }

  [[nodiscard]] iterator lower_bound(const FreeKey& key) const {
    return first_not(bin_of(key), Below{key});
  }
  // The first one of at least that size, of that stream or a later one.
  [[nodiscard]] iterator from(int stream, std::int64_t size) const {
    const FreeKey least(stream, size, 0, kNone);
    return first_not(bin_of(least),
                     [&least](const FreeKey& each) { return each.order < least.order; });
  }

  void insert(const FreeKey& key) {
    const std::size_t index = bin_of(key);
    if (index >= bins_.size()) {
      const auto streams = static_cast<std::size_t>(key.stream()) + 1;
      bins_.resize(streams * kBins);
      filled_.resize(streams * kBins / kBits);
    }
    Bin& bin = bins_[index];
    ++size_;
    filled_[index / kBits] |= std::uint64_t{1} << (index % kBits);
    if (bin.empty()) bin.emplace_back();
    const std::size_t which = part_for(bin, Below{key});
    Part& part = bin[which];
    part.insert(part.begin() + static_cast<std::ptrdiff_t>(place_in(part, Below{key})), key);
    if (part.size() > kLongest) halve(bin, which);
  }
  void erase(const iterator& place) {
    Bin& bin = bins_[place.bin_];
    Part& part = bin[place.part_];
    part.erase(part.begin() + static_cast<std::ptrdiff_t>(place.at_));
    --size_;
    if (!part.empty()) return;
    if (bin.size() > 1) {
      bin.erase(bin.begin() + static_cast<std::ptrdiff_t>(place.part_));
    } else {
      filled_[place.bin_ / kBits] &= ~(std::uint64_t{1} << (place.bin_ % kBits));
    }
  }
  void erase(const FreeKey& key) { erase(lower_bound(key)); }
  // The key at that place goes, the new one comes.
  void replace(const iterator& place, const FreeKey& key) {
    erase(place);
    insert(key);
  }

 private:
  struct Below {
    const FreeKey& key;
    bool operator()(const FreeKey& each) const {
      return (each.order < key.order) |
             (static_cast<int>(each.order == key.order) & (each.address < key.address));
    }
  };

  static constexpr std::size_t kBits = 64;
  static constexpr std::size_t kBins = 384;  // of a stream: eight for each power of two of units
  static constexpr int kUnit = 9;            // sizes are multiples of 512

  [[nodiscard]] static std::size_t bin_of(const FreeKey& key) {
    const auto units = static_cast<std::uint64_t>(key.size()) >> kUnit;
    const int power = std::max(static_cast<int>(std::bit_width(units)), 4) - 4;
    const auto within = static_cast<std::size_t>(units >> power) & 15U;
    return static_cast<std::size_t>(key.stream()) * kBins + static_cast<std::size_t>(power) * 8U +
           within;
  }
  [[nodiscard]] bool is_filled(std::size_t bin) const {
    return (filled_[bin / kBits] >> (bin % kBits) & 1U) != 0;
  }
  // Whose last key is not below; the last one takes what no other does.
  template <class IsBelow>
  [[nodiscard]] static std::size_t part_for(const Bin& bin, const IsBelow& below) {
    const auto last = bin.end() - 1;
    const auto found = std::partition_point(
        bin.begin(), last, [&below](const Part& part) { return below(part.back()); });
    return static_cast<std::size_t>(found - bin.begin());
  }
  // Half of all answers of a search are a surprise to the processor: no branch depends on them.
  template <class IsBelow>
  [[nodiscard]] static std::size_t place_in(const Part& part, const IsBelow& below) {
    const FreeKey* first = part.data();
    std::size_t count = part.size();
    while (count > 0) {
      const std::size_t half = count / 2;
      first += below(first[half]) ? count - half : 0;
      count = half;
    }
    return static_cast<std::size_t>(first - part.data());
  }
  // The first key of the bins from that one on.
  [[nodiscard]] iterator first_from(std::size_t bin) const {
    std::size_t word = bin / kBits;
    if (word >= filled_.size()) return end();
    std::uint64_t bits = filled_[word] & (~std::uint64_t{0} << (bin % kBits));
    while (bits == 0) {
      if (++word == filled_.size()) return end();
      bits = filled_[word];
    }
    return {this, word * kBits + static_cast<std::size_t>(std::countr_zero(bits)), 0, 0};
  }
  template <class IsBelow>
  [[nodiscard]] iterator first_not(std::size_t index, const IsBelow& below) const {
    if (index >= bins_.size() || !is_filled(index)) return first_from(index);
    const Bin& bin = bins_[index];
    const std::size_t which = part_for(bin, below);
    const Part& part = bin[which];
    const std::size_t at = place_in(part, below);
    if (at == part.size()) return first_from(index + 1);
    return {this, index, which, at};
  }
  static void halve(Bin& bin, std::size_t index) {
    const auto middle = static_cast<std::ptrdiff_t>(bin[index].size() / 2);
    Part upper(bin[index].begin() + middle, bin[index].end());
    bin[index].erase(bin[index].begin() + middle, bin[index].end());
    bin.insert(bin.begin() + static_cast<std::ptrdiff_t>(index) + 1, std::move(upper));
  }

  std::vector<Bin> bins_;              // by stream and size
  std::vector<std::uint64_t> filled_;  // bits of the bins that are not empty
  std::size_t size_ = 0;
};

}  // namespace steelyard::vram::blocks
