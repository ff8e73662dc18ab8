// Random numbers that depend on nothing but their seed: the same rehearsal twice reads, crops and
// mirrors the same.
#pragma once

#include <cstdint>

namespace steelyard::rehearse {

// splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014): one step
// of a counter, mixed. Good enough to crop by, and its state is one word.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    state_ += 0x9e3779b97f4a7c15U;
    return mixed(state_);
  }
  // In [0, 1).
  double real() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  // In [low, high).
  double between(double low, double high) { return low + (high - low) * real(); }
  // In [0, below); below >= 1.
  int whole(int below) {
    return static_cast<int>((next() >> 32) * static_cast<std::uint64_t>(below) >> 32);
  }

  static std::uint64_t mixed(std::uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
  }

 private:
  std::uint64_t state_;
};

}  // namespace steelyard::rehearse
