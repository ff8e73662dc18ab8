// UTF-8 as RFC 3629 defines it: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace steelyard::codec {

// Length in bytes of the well-formed sequence at `at`, or 0 when the bytes there are malformed.
[[nodiscard]] std::size_t utf8_sequence(std::string_view text, std::size_t at);

// Offset of the first malformed byte; nothing when the whole text is well-formed.
[[nodiscard]] std::optional<std::size_t> first_malformed_utf8(std::string_view text);

// 1-based line of a byte offset.
[[nodiscard]] int line_of(std::string_view text, std::size_t offset);

}  // namespace steelyard::codec
