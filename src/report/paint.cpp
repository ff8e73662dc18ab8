#include "report/paint.h"

#include <algorithm>

#include "base/text.h"

namespace steelyard::report {
namespace {

constexpr int kNarrowest = 60;

constexpr Signs kDrawn = {.bar_left = "▕",
                          .bar_right = "▏",
                          .fills = {"█", "▒", "▓", "░"},
                          .free = "·",
                          .limit = "┃",
                          .limit_corner = "┗",
                          .beam = "─",
                          .tick = "┬",
                          .fulcrum = "╂",
                          .rule = "━",
                          .rule_tick = "┯",
                          .onward = "►",
                          .load = "◉",
                          .down = "▼",
                          .up = "▲",
                          .separator = " · ",
                          .arrow = " → ",
                          .times = "×",
                          .about = "±"};

constexpr Signs kPlain = {.bar_left = "[",
                          .bar_right = "]",
                          .fills = {"#", "-", "=", ":"},
                          .free = ".",
                          .limit = "|",
                          .limit_corner = "^",
                          .beam = "-",
                          .tick = "+",
                          .fulcrum = "|",
                          .rule = "=",
                          .rule_tick = "+",
                          .onward = ">",
                          .load = "O",
                          .down = "v",
                          .up = "^",
                          .separator = ", ",
                          .arrow = " -> ",
                          .times = "x",
                          .about = "+-"};

std::string_view escape_of(Ink ink) {
  switch (ink) {
    case Ink::plain: return "";
    case Ink::strong: return "\x1b[1m";
    case Ink::quiet: return "\x1b[2m";
    case Ink::good: return "\x1b[1;32m";
    case Ink::bad: return "\x1b[1;31m";
    case Ink::blue: return "\x1b[34m";
    case Ink::green: return "\x1b[32m";
    case Ink::yellow: return "\x1b[33m";
    case Ink::magenta: return "\x1b[35m";
    case Ink::cyan: return "\x1b[36m";
  }
  return "";
}

}  // namespace

Paint::Paint(const Style& style)
    : signs_(style.ascii ? kPlain : kDrawn),
      columns_(static_cast<std::size_t>(std::max(style.columns, kNarrowest))),
      colour_(style.colour),
      ascii_(style.ascii) {}

std::string Paint::ink(std::string_view text, Ink ink) const {
  if (!colour_ || ink == Ink::plain || text.empty()) return std::string(text);
  return std::string(escape_of(ink)) + std::string(text) + "\x1b[0m";
}

std::string Paint::outside(std::string_view text) const {
  std::string clean = printable(text);
  if (!ascii_) return clean;
  std::string plain;
  for (const char c : clean) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) plain += c;
    if (byte >= 0xC0) plain += '?';  // one per character: the bytes that follow are left out
  }
  return plain;
}

}  // namespace steelyard::report
