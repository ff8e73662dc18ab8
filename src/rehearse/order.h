// The order in which records are read: every record once an epoch, shuffled anew for each by a
// seed, or one after the other. Takes no memory: the permutation is computed, not stored.
//
// Several processes read a part each as PyTorch's DistributedSampler deals records out
// (torch/utils/data/distributed.py): all know the same order, process r of n takes its places r,
// r + n, ...; where n does not divide the records, the order begins anew, so that all have as many.
#pragma once

#include <cstdint>

namespace steelyard::rehearse {

struct Shard {
  std::uint64_t rank = 0;
  std::uint64_t of = 1;
};

class Order {
 public:
  // records >= 1, shard.rank < shard.of.
  Order(std::uint64_t records, std::uint64_t seed, bool shuffled, Shard shard = {});

  // The record at `position`, counted through all epochs of this shard.
  [[nodiscard]] std::uint64_t at(std::uint64_t position) const;
  [[nodiscard]] std::uint64_t epoch(std::uint64_t position) const { return position / length(); }
  // Records of this shard in an epoch.
  [[nodiscard]] std::uint64_t length() const { return (records_ + shard_.of - 1) / shard_.of; }

 private:
  [[nodiscard]] std::uint64_t permuted(std::uint64_t value, std::uint64_t key) const;

  std::uint64_t records_, seed_;
  Shard shard_;
  bool shuffled_;
  int half_bits_;  // of the numbers that are permuted: 2^(2 half_bits) >= records
};

}  // namespace steelyard::rehearse
