#include "rehearse/order.h"

#include "rehearse/image/random.h"

namespace steelyard::rehearse {
namespace {

constexpr int kRounds = 4;  // Luby and Rackoff: four rounds of Feistel's network make it random

}  // namespace

Order::Order(std::uint64_t records, std::uint64_t seed, bool shuffled, Shard shard)
    : records_(records), seed_(seed), shard_(shard), shuffled_(shuffled), half_bits_(1) {
  while ((std::uint64_t{1} << (2 * half_bits_)) < records) ++half_bits_;
}

std::uint64_t Order::permuted(std::uint64_t value, std::uint64_t key) const {
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  std::uint64_t left = value >> half_bits_, right = value & mask;
  for (std::uint64_t round = 0; round < kRounds; ++round) {
    const std::uint64_t mixed = Random::mixed(key + round * 0x9e3779b97f4a7c15U + right) & mask;
    const std::uint64_t old = left;
    left = right;
    right = old ^ mixed;
  }
  return (left << half_bits_) | right;
}

std::uint64_t Order::at(std::uint64_t position) const {
  const std::uint64_t in_epoch = (position % length() * shard_.of + shard_.rank) % records_;
  if (!shuffled_) return in_epoch;
  const std::uint64_t key = Random::mixed(seed_ ^ Random::mixed(epoch(position) + 1));
  // Cycle walking: at most four times as many numbers as records, so two steps or so.
  std::uint64_t value = permuted(in_epoch, key);
  while (value >= records_) value = permuted(value, key);
  return value;
}

}  // namespace steelyard::rehearse
