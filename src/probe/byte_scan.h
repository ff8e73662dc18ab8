// Looking at every byte of a buffer once: the least that any reader of text does.
#pragma once

#include <cstddef>
#include <span>

namespace steelyard::probe {

// How many bytes of `text` are `wanted`.
[[nodiscard]] std::size_t count_byte(std::span<const std::byte> text, std::byte wanted);

}  // namespace steelyard::probe
