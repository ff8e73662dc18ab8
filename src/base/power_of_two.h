// Allocators that serve powers of two: the block that a request gets.
#pragma once

#include <bit>
#include <cstdint>

#include "base/quantity.h"

namespace steelyard {

// The smallest power of two that is at least `requested`; 0 for 0 and below. Throws
// QuantityOverflow above 2^62 bytes.
inline Bytes next_power_of_two(Bytes requested) {
  if (requested.value() <= 0) return Bytes();
  constexpr std::int64_t kLargest = std::int64_t{1} << 62;
  if (requested.value() > kLargest) throw_quantity_overflow();
  return Bytes(
      static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(requested.value()))));
}

}  // namespace steelyard
