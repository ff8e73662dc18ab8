// A 64-bit fingerprint of a sequence of whole numbers: equal sequences have equal ones, different
// ones almost never (one in 2^64).
#pragma once

#include <cstdint>

namespace steelyard {

class Fingerprint {
 public:
  void add(std::int64_t number) {
    // The finaliser of MurmurHash3 over the running value: each bit reaches every other.
    std::uint64_t mixed = value_ ^ (static_cast<std::uint64_t>(number) + 0x9e3779b97f4a7c15U);
    mixed = (mixed ^ (mixed >> 33U)) * 0xff51afd7ed558ccdU;
    mixed = (mixed ^ (mixed >> 33U)) * 0xc4ceb9fe1a85ec53U;
    value_ = mixed ^ (mixed >> 33U);
  }
  [[nodiscard]] std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0;
};

}  // namespace steelyard
