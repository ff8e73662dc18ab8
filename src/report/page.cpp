#include "report/page.h"

#include "base/text.h"

namespace steelyard::report {
namespace {

constexpr std::size_t kMargin = 8;  // the longest word and a blank

}  // namespace

std::size_t Page::width() const {
  return paint_.columns() - kMargin;
}

void Page::line(std::string_view text) {
  text_ += text;
  text_.erase(text_.find_last_not_of(' ') + 1);
  text_ += '\n';
}

void Page::blank() {
  if (!text_.empty() && !text_.ends_with("\n\n")) text_ += '\n';
}

void Page::section(std::string_view word, const std::vector<std::string>& lines, Ink ink) {
  bool first = true;
  for (const std::string& content : lines) {
    const std::string margin = first ? paint_.ink(word, ink) : std::string();
    line(padded(margin, kMargin) + content);
    first = false;
  }
}

}  // namespace steelyard::report
