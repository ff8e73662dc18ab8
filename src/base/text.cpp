#include "base/text.h"

#include <algorithm>
#include <array>
#include <cstdint>

namespace steelyard {
namespace {

struct Codepoint {
  std::uint32_t value = 0;
  std::size_t bytes = 1;
  bool valid = false;
};

// The first character of a non-empty text; an invalid byte counts as one character.
Codepoint decode(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const std::uint8_t lead = byte(0);
  if (lead < 0x80) return {lead, 1, true};
  const std::size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < length) return {};
  std::uint32_t value = lead & (0xFFU >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80U) return {};
    value = (value << 6U) | (byte(i) & 0x3FU);
  }
  constexpr std::array<std::uint32_t, 5> kLeast = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = value >= 0xD800 && value <= 0xDFFF;
  if (value < kLeast[length] || value > 0x10FFFF || surrogate) return {};
  return {value, length, true};
}

// Length of the ANSI colour sequence (ESC [ parameters letter) at the start, 0 when there is none.
std::size_t escape_length(std::string_view text) {
  if (text.size() < 2 || text[0] != '\x1b' || text[1] != '[') return 0;
  for (std::size_t i = 2; i < text.size(); ++i) {
    if (text[i] >= '@' && text[i] <= '~') return i + 1;
  }
  return 0;
}

struct Range {
  std::uint32_t first, last;
};

template <std::size_t N>
bool within(const std::array<Range, N>& ranges, std::uint32_t c) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [c](Range range) { return c >= range.first && c <= range.last; });
}

// Blocks of combining marks and other characters without width (Unicode 15, categories Mn, Me, Cf).
constexpr std::array<Range, 8> kNoWidth = {{{0x0300, 0x036F},
                                            {0x0483, 0x0489},
                                            {0x0591, 0x05BD},
                                            {0x1AB0, 0x1AFF},
                                            {0x200B, 0x200F},
                                            {0x20D0, 0x20F0},
                                            {0xFE00, 0xFE0F},
                                            {0xFE20, 0xFE2F}}};
// Blocks of East_Asian_Width W and F (Unicode 15, EastAsianWidth.txt), and emoji.
constexpr std::array<Range, 8> kTwoWide = {{{0x1100, 0x115F},
                                            {0x2E80, 0x303E},
                                            {0x3041, 0xA4CF},
                                            {0xAC00, 0xD7A3},
                                            {0xF900, 0xFAFF},
                                            {0xFF00, 0xFF60},
                                            {0x1F300, 0x1FAFF},
                                            {0x20000, 0x3FFFD}}};

std::size_t width_of(Codepoint c) {
  if (!c.valid) return 1;
  if (within(kNoWidth, c.value)) return 0;
  return within(kTwoWide, c.value) ? 2 : 1;
}

// Units are this short ("GiB", "min"); a number keeps the word behind it when it may be its unit.
constexpr std::size_t kLongestUnit = 3;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// Takes the next word off the text's front, a number together with its unit.
std::string_view next_word(std::string_view& text) {
  std::size_t end = std::min(text.find(' '), text.size());
  if (end > 0 && end < text.size() && is_digit(text[end - 1])) {
    const std::size_t unit_end = std::min(text.find(' ', end + 1), text.size());
    const std::string_view unit = text.substr(end + 1, unit_end - end - 1);
    if (!unit.empty() && unit.size() <= kLongestUnit) end = unit_end;
  }
  const std::string_view word = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return word;
}

}  // namespace

std::size_t display_width(std::string_view text) {
  std::size_t width = 0;
  while (!text.empty()) {
    if (const std::size_t escape = escape_length(text); escape > 0) {
      text.remove_prefix(escape);
      continue;
    }
    const Codepoint c = decode(text);
    width += width_of(c);
    text.remove_prefix(c.bytes);
  }
  return width;
}

std::string padded(std::string_view text, std::size_t width, Align align) {
  const std::size_t own = display_width(text);
  if (own >= width) return std::string(text);
  const std::string blanks(width - own, ' ');
  return align == Align::left ? std::string(text) + blanks : blanks + std::string(text);
}

std::string shortened(std::string_view text, std::size_t width) {
  if (display_width(text) <= width) return std::string(text);
  constexpr std::string_view kCut = "...";
  if (width <= kCut.size()) return std::string(kCut.substr(0, width));
  std::string kept;
  std::size_t used = 0;
  while (!text.empty()) {
    const Codepoint c = decode(text);
    if (used + width_of(c) > width - kCut.size()) break;
    used += width_of(c);
    kept += text.substr(0, c.bytes);
    text.remove_prefix(c.bytes);
  }
  return kept + std::string(kCut);
}

std::vector<std::string> wrapped(std::string_view text, std::size_t width) {
  std::vector<std::string> lines;
  std::string line;
  std::size_t used = 0;
  while (!text.empty()) {
    const std::string_view word = next_word(text);
    if (word.empty()) continue;
    const std::size_t word_width = display_width(word);
    if (used > 0 && used + 1 + word_width > width) {
      lines.push_back(std::move(line));
      line.clear();
      used = 0;
    }
    if (used > 0) line += ' ';
    used += word_width + (used > 0 ? 1 : 0);
    line += word;
  }
  if (!line.empty()) lines.push_back(std::move(line));
  return lines;
}

std::string repeated(std::string_view piece, std::size_t times) {
  std::string text;
  text.reserve(piece.size() * times);
  for (std::size_t i = 0; i < times; ++i) text += piece;
  return text;
}

std::string printable(std::string_view text) {
  std::string clean;
  while (!text.empty()) {
    const Codepoint c = decode(text);
    const bool control = c.value < 0x20 || (c.value >= 0x7F && c.value < 0xA0);
    const bool turns_direction =  // bidirectional overrides can disguise what follows
        (c.value >= 0x202A && c.value <= 0x202E) || (c.value >= 0x2066 && c.value <= 0x2069);
    if (c.valid && !control && !turns_direction) {
      clean += text.substr(0, c.bytes);
    } else {
      clean += '?';
    }
    text.remove_prefix(c.bytes);
  }
  return clean;
}

}  // namespace steelyard
