// Text on a grid of columns: how wide it is, and padding, cutting and wrapping by that width.
//
// Text is UTF-8. Width is in terminal columns: a combining mark takes none, an East Asian wide
// character or emoji two, an ANSI colour sequence (ESC [ ... letter) none.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace steelyard {

enum class Align { left, right };

[[nodiscard]] std::size_t display_width(std::string_view text);

// Blanks added up to `width` columns; text that is wider stays as it is.
[[nodiscard]] std::string padded(std::string_view text, std::size_t width,
                                 Align align = Align::left);

// At most `width` columns; what is cut off is shown by "...". Colour sequences are not expected.
[[nodiscard]] std::string shortened(std::string_view text, std::size_t width);

// Lines of at most `width` columns, broken at blanks but not between a number and its unit; a
// longer word gets a line of its own.
[[nodiscard]] std::vector<std::string> wrapped(std::string_view text, std::size_t width);

// `piece` `times` times: bars and rules.
[[nodiscard]] std::string repeated(std::string_view piece, std::size_t times);

// For names that come from files: control characters and broken UTF-8 become "?", so that no input
// can move the cursor or colour the terminal.
[[nodiscard]] std::string printable(std::string_view text);

}  // namespace steelyard
