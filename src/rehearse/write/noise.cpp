#include "rehearse/write/noise.h"

#include <cmath>
#include <cstring>
#include <numbers>

namespace steelyard::rehearse {

double Noise::normal() {
  const double radius = std::sqrt(-2 * std::log(1 - share()));
  return radius * std::cos(2 * std::numbers::pi * share());
}

void Noise::fill(std::span<unsigned char> bytes) {
  std::size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    const std::uint64_t word = next();
    std::memcpy(&bytes[i], &word, 8);
  }
  for (std::uint64_t word = next(); i < bytes.size(); ++i, word >>= 8) {
    bytes[i] = static_cast<unsigned char>(word);
  }
}

}  // namespace steelyard::rehearse
