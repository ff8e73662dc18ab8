#include "probe/byte_scan.h"

#include <algorithm>
#include <cstdint>

namespace steelyard::probe {

namespace {

// Counts in bytes, which vectors hold many of; 255 of them cannot overflow.
[[gnu::always_inline]] inline std::size_t count_in(const std::uint8_t* text, std::size_t size,
                                                   std::uint8_t wanted) {
  constexpr std::size_t kLanes = 256;
  constexpr std::size_t kRounds = 255;
  std::size_t total = 0;
  std::size_t at = 0;
  while (at + kLanes <= size) {
    std::uint8_t counts[kLanes] = {};
    const std::size_t rounds = std::min(kRounds, (size - at) / kLanes);
    for (std::size_t round = 0; round < rounds; ++round, at += kLanes) {
      for (std::size_t lane = 0; lane < kLanes; ++lane) {
        counts[lane] = static_cast<std::uint8_t>(counts[lane] + (text[at + lane] == wanted));
      }
    }
    for (const std::uint8_t count : counts) total += count;
  }
  for (; at < size; ++at) total += text[at] == wanted;
  return total;
}

#if defined(__x86_64__)
// The same loop for wider vectors.
__attribute__((target("avx512f,avx512bw"))) std::size_t count_avx512(const std::uint8_t* text,
                                                                     std::size_t size,
                                                                     std::uint8_t wanted) {
  return count_in(text, size, wanted);
}

__attribute__((target("avx2"))) std::size_t count_avx2(const std::uint8_t* text, std::size_t size,
                                                       std::uint8_t wanted) {
  return count_in(text, size, wanted);
}
#endif

}  // namespace

std::size_t count_byte(std::span<const std::byte> text, std::byte wanted) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(text.data());
  const auto value = static_cast<std::uint8_t>(wanted);
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bw")) return count_avx512(bytes, text.size(), value);
  if (__builtin_cpu_supports("avx2")) return count_avx2(bytes, text.size(), value);
#endif
  return count_in(bytes, text.size(), value);
}

}  // namespace steelyard::probe
