// Numbers that look random and depend only on a seed: the same on every machine and for any number
// of threads.
#pragma once

#include <cstdint>
#include <span>

namespace steelyard::rehearse {

// SplitMix64 (Steele, Lea, Flood 2014): any seed is a good one.
class Noise {
 public:
  // Streams of one seed have nothing in common.
  explicit Noise(std::uint64_t seed, std::uint64_t stream = 0)
      : state_(mixed(seed ^ mixed(stream + 0x9e3779b97f4a7c15U))) {}

  [[nodiscard]] std::uint64_t next() { return mixed(state_ += 0x9e3779b97f4a7c15U); }
  // In [0, 1).
  [[nodiscard]] double share() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
  // Below `limit`, which is at least 1.
  [[nodiscard]] std::uint64_t below(std::uint64_t limit) { return next() % limit; }
  // Standard normal (Box and Muller).
  [[nodiscard]] double normal();
  void fill(std::span<unsigned char> bytes);

 private:
  static std::uint64_t mixed(std::uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
  }

  std::uint64_t state_;
};

}  // namespace steelyard::rehearse
