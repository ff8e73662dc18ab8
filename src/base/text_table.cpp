#include "base/text_table.h"

#include <algorithm>
#include <stdexcept>

namespace steelyard {
namespace {

constexpr std::string_view kGap = "  ";

void strip_trailing_blanks(std::string& text) {
  text.erase(text.find_last_not_of(' ') + 1);
}

std::string escaped_cell(std::string_view cell) {
  std::string text;
  for (const char c : cell) {
    if (c == '|') text += '\\';
    text += c == '\n' ? ' ' : c;
  }
  return text;
}

}  // namespace

TextTable::TextTable(std::vector<Column> columns) : columns_(std::move(columns)) {}

void TextTable::add(std::vector<std::string> cells) {
  if (cells.size() > columns_.size()) throw std::logic_error("a table row has too many cells");
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

std::vector<std::size_t> TextTable::widths() const {
  std::vector<std::size_t> widths;
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    std::size_t width = display_width(columns_[c].title);
    for (const auto& row : rows_) width = std::max(width, display_width(row[c]));
    widths.push_back(width);
  }
  return widths;
}

std::string TextTable::text(std::size_t indent, std::string_view rule) const {
  const std::vector<std::size_t> width = widths();
  std::string text;
  const auto add_line = [&](const auto& cell_of) {
    std::string line(indent, ' ');
    for (std::size_t c = 0; c < columns_.size(); ++c) {
      if (c > 0) line += kGap;
      line += cell_of(c);
    }
    strip_trailing_blanks(line);
    text += line + "\n";
  };
  const bool titled = std::any_of(columns_.begin(), columns_.end(),
                                  [](const Column& column) { return !column.title.empty(); });
  if (titled) {
    add_line([&](std::size_t c) { return padded(columns_[c].title, width[c], columns_[c].align); });
    if (!rule.empty()) add_line([&](std::size_t c) { return repeated(rule, width[c]); });
  }
  for (const auto& row : rows_) {
    add_line([&](std::size_t c) { return padded(row[c], width[c], columns_[c].align); });
  }
  return text;
}

std::string TextTable::markdown() const {
  std::string text = "|";
  for (const Column& column : columns_) text += " " + escaped_cell(column.title) + " |";
  text += "\n|";
  for (const Column& column : columns_) text += column.align == Align::left ? "---|" : "--:|";
  text += "\n";
  for (const auto& row : rows_) {
    text += "|";
    for (const std::string& cell : row) text += " " + escaped_cell(cell) + " |";
    text += "\n";
  }
  return text;
}

}  // namespace steelyard
