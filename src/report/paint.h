// Colours and signs of the reports. A sign or a word always carries the meaning; colour repeats it.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "report/report.h"

namespace steelyard::report {

enum class Ink { plain, strong, quiet, good, bad, blue, green, yellow, magenta, cyan };

struct Signs {
  std::string_view bar_left, bar_right;      // the ends of a bar
  std::array<std::string_view, 4> fills;     // neighbouring parts of a bar take turns
  std::string_view free;                     // a cell of a bar that nothing holds
  std::string_view limit;                    // the capacity, where a bar reaches beyond it
  std::string_view limit_corner;             // below it, before the words
  std::string_view beam, tick, fulcrum;      // the steelyard
  std::string_view rule, rule_tick, onward;  // the rule of thumb on it; "and more"
  std::string_view load, down, up;           // the pan; pointers from above and below
  std::string_view separator, arrow;         // between the words of a line
  std::string_view times, about;             // 2 x 8; +- 4 %
};

class Paint {
 public:
  explicit Paint(const Style& style);

  [[nodiscard]] std::string ink(std::string_view text, Ink ink) const;
  [[nodiscard]] const Signs& signs() const { return signs_; }
  [[nodiscard]] std::size_t columns() const { return columns_; }
  [[nodiscard]] bool ascii() const { return ascii_; }
  // Text from outside: nothing that moves the cursor, and only ASCII with --ascii.
  [[nodiscard]] std::string outside(std::string_view text) const;

 private:
  const Signs& signs_;
  std::size_t columns_;
  bool colour_;
  bool ascii_;
};

}  // namespace steelyard::report
