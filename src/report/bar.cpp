#include "report/bar.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/format.h"
#include "base/text.h"

namespace steelyard::report {
namespace {

std::vector<Part> present(const std::vector<Part>& parts) {
  std::vector<Part> kept;
  for (const Part& part : parts) {
    if (part.amount > 0.0) kept.push_back(part);
  }
  return kept;
}

double sum_of(const std::vector<Part>& parts) {
  double sum = 0.0;
  for (const Part& part : parts) sum += part.amount;
  return sum;
}

}  // namespace

std::vector<std::size_t> cells_of(const std::vector<double>& amounts, double whole,
                                  std::size_t cells) {
  std::vector<std::size_t> given;
  double so_far = 0.0;
  std::size_t used = 0;
  for (const double amount : amounts) {
    so_far += amount;
    const double end = whole > 0.0 ? so_far / whole * static_cast<double>(cells) : 0.0;
    const auto until = static_cast<std::size_t>(
        std::clamp(std::round(end), static_cast<double>(used), static_cast<double>(cells)));
    given.push_back(until - used);
    used = until;
  }
  return given;
}

std::vector<std::string> bar_lines(const Bar& bar, std::size_t width, const Paint& paint) {
  const Signs& signs = paint.signs();
  const std::vector<Part> parts = present(bar.parts);
  const double sum = sum_of(parts);
  const bool beyond = bar.limit && sum > *bar.limit;
  const std::size_t cells = width - 2 - (beyond ? 1 : 0);  // the ends, and the mark of the limit
  const double whole = std::max(bar.limit.value_or(sum), sum);

  std::vector<double> amounts;
  for (const Part& part : parts) amounts.push_back(part.amount);
  const std::vector<std::size_t> given = cells_of(amounts, whole, cells);
  const std::size_t limit_at = beyond ? cells_of({*bar.limit}, whole, cells).front() : cells + 1;

  std::string line(signs.bar_left);
  std::size_t cell = 0;
  for (std::size_t p = 0; p < parts.size(); ++p) {
    for (std::size_t i = 0; i < given[p]; ++i, ++cell) {
      if (cell == limit_at) line += paint.ink(signs.limit, Ink::bad);
      const std::string letter(1, parts[p].letter);
      line += i == 0 ? paint.ink(letter, Ink::strong)
                     : paint.ink(signs.fills[p % signs.fills.size()], parts[p].ink);
    }
  }
  if (cell == limit_at) line += paint.ink(signs.limit, Ink::bad);
  line += paint.ink(repeated(signs.free, cells - std::min(cell, cells)), Ink::quiet);
  line += signs.bar_right;
  std::vector<std::string> lines = {line};
  if (beyond) {
    const std::string words = fmt::format("{} {}", signs.limit_corner, bar.limit_text);
    const std::size_t at = std::min(limit_at + 1, width - std::min(width, display_width(words)));
    const bool left = at < limit_at + 1;  // no room to its right: the words end at the mark
    lines.push_back(
        left ? padded(bar.limit_text + " " + std::string(signs.up), limit_at + 2, Align::right)
             : std::string(at, ' ') + words);
  }
  return lines;
}

std::vector<std::string> legend_lines(const Bar& bar, std::size_t width, const Paint& paint) {
  const std::vector<Part> parts = present(bar.parts);
  const double sum = sum_of(parts);
  std::size_t name_width = 0;
  std::size_t size_width = 0;
  for (const Part& part : parts) {
    name_width = std::max(name_width, display_width(part.name));
    size_width = std::max(size_width, display_width(part.size));
  }
  constexpr std::size_t kShareWidth = 6;
  constexpr std::size_t kGap = 3;
  const std::size_t entry = 2 + name_width + 1 + size_width + kShareWidth;
  const std::size_t in_a_row = std::max<std::size_t>(1, (width + kGap) / (entry + kGap));
  std::vector<std::string> lines;
  for (std::size_t p = 0; p < parts.size(); ++p) {
    if (p % in_a_row == 0) lines.emplace_back();
    if (p % in_a_row > 0) lines.back() += std::string(kGap, ' ');
    lines.back() +=
        paint.ink(std::string(1, parts[p].letter), Ink::strong) + " " +
        padded(parts[p].name, name_width) + " " + padded(parts[p].size, size_width, Align::right) +
        paint.ink(padded(percent(Ratio(parts[p].amount / sum)), kShareWidth, Align::right),
                  Ink::quiet);
  }
  return lines;
}

}  // namespace steelyard::report
