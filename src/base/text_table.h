// A table of text with aligned columns, for the terminal and as Markdown.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/text.h"

namespace steelyard {

class TextTable {
 public:
  struct Column {
    std::string title;
    Align align = Align::left;
  };

  explicit TextTable(std::vector<Column> columns);

  // One cell per column; missing cells are blank, surplus ones are our bug and throw
  // std::logic_error.
  void add(std::vector<std::string> cells);

  [[nodiscard]] bool empty() const { return rows_.empty(); }

  // A line of titles (left out when all are empty), then one line per row, columns two blanks
  // apart, no trailing blanks, each line ending in a newline. `rule`: the character of the line
  // under the titles; empty for none.
  [[nodiscard]] std::string text(std::size_t indent = 0, std::string_view rule = {}) const;

  // A Markdown table ("|" in cells escaped).
  [[nodiscard]] std::string markdown() const;

 private:
  [[nodiscard]] std::vector<std::size_t> widths() const;

  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace steelyard
