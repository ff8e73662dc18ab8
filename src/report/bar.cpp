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

constexpr std::size_t kGap = 2;         // between two columns of the legend
constexpr std::size_t kMostInARow = 4;  // more are hard to scan

struct Entry {
  char letter;
  std::string name, size, share;
};

struct Column {
  std::size_t name = 0, size = 0, share = 0;
  [[nodiscard]] std::size_t width() const { return 2 + name + 1 + size + 1 + share; }
};

std::vector<Entry> entries_of(const std::vector<Part>& parts) {
  const double sum = sum_of(parts);
  std::vector<Entry> entries;
  for (const Part& part : parts) {
    entries.push_back({part.letter, part.name, part.size, percent(Ratio(part.amount / sum))});
  }
  return entries;
}

std::vector<Column> columns_of(const std::vector<Entry>& entries, std::size_t in_a_row) {
  std::vector<Column> columns(in_a_row);
  for (std::size_t e = 0; e < entries.size(); ++e) {
    Column& column = columns[e % in_a_row];
    column.name = std::max(column.name, display_width(entries[e].name));
    column.size = std::max(column.size, display_width(entries[e].size));
    column.share = std::max(column.share, display_width(entries[e].share));
  }
  return columns;
}

std::size_t total_width(const std::vector<Column>& columns) {
  std::size_t width = kGap * (columns.size() - 1);
  for (const Column& column : columns) width += column.width();
  return width;
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
  // Taken off: the ends of the bar, and the mark of the limit or the words behind the bar.
  const std::size_t words_width = display_width(bar.limit_text);
  const std::size_t cells = width - 2 - (beyond ? 1 : words_width + (words_width > 0 ? 1 : 0));
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
  if (!beyond && !bar.limit_text.empty()) line += " " + paint.ink(bar.limit_text, Ink::quiet);
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
  const std::vector<Entry> entries = entries_of(present(bar.parts));
  std::size_t in_a_row = std::min(entries.size(), kMostInARow);
  while (in_a_row > 1 && total_width(columns_of(entries, in_a_row)) > width) --in_a_row;
  if (in_a_row == 0) return {};
  const std::vector<Column> columns = columns_of(entries, in_a_row);
  std::vector<std::string> lines;
  for (std::size_t e = 0; e < entries.size(); ++e) {
    const Column& column = columns[e % in_a_row];
    if (e % in_a_row == 0) lines.emplace_back();
    if (e % in_a_row > 0) lines.back() += std::string(kGap, ' ');
    lines.back() += paint.ink(std::string(1, entries[e].letter), Ink::strong) + " " +
                    padded(entries[e].name, column.name) + " " +
                    padded(entries[e].size, column.size, Align::right) + " " +
                    paint.ink(padded(entries[e].share, column.share, Align::right), Ink::quiet);
  }
  return lines;
}

}  // namespace steelyard::report
