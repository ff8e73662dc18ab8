// The order in which records are read: every record once an epoch, shuffled anew for each by a
// seed, or one after the other. Takes no memory: the permutation is computed, not stored.
#pragma once

#include <cstdint>

namespace steelyard::rehearse {

class Order {
 public:
  // records >= 1.
  Order(std::uint64_t records, std::uint64_t seed, bool shuffled);

  // The record at `position`, counted through all epochs.
  [[nodiscard]] std::uint64_t at(std::uint64_t position) const;
  [[nodiscard]] std::uint64_t epoch(std::uint64_t position) const { return position / records_; }

 private:
  [[nodiscard]] std::uint64_t permuted(std::uint64_t value, std::uint64_t key) const;

  std::uint64_t records_, seed_;
  bool shuffled_;
  int half_bits_;  // of the numbers that are permuted: 2^(2 half_bits) >= records
};

}  // namespace steelyard::rehearse
