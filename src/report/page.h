// A page of sections: a word in the left margin, its lines to the right of it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "report/paint.h"

namespace steelyard::report {

class Page {
 public:
  explicit Page(const Paint& paint) : paint_(paint) {}

  // Columns to the right of the margin.
  [[nodiscard]] std::size_t width() const;

  void line(std::string_view text);  // over the whole width
  void blank();                      // never two in a row, none at the start
  // The first line stands beside the word, the others below it.
  void section(std::string_view word, const std::vector<std::string>& lines, Ink ink = Ink::strong);

  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  const Paint& paint_;
  std::string text_;
};

}  // namespace steelyard::report
