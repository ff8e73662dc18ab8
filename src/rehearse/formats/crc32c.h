// CRC-32C (Castagnoli; reflected polynomial 0x82f63b78; RFC 3720 appendix B.4), and the masked form
// that TFRecord stores.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace steelyard::rehearse {

// `before` is the result for the bytes that come before, to go on from.
[[nodiscard]] std::uint32_t crc32c(std::span<const unsigned char> bytes, std::uint32_t before = 0);

// tensorflow/core/lib/hash/crc32c.h: rotated right by 15 bits, plus 0xa282ead8.
[[nodiscard]] std::uint32_t masked(std::uint32_t crc);

}  // namespace steelyard::rehearse
