// A bar of parts against a limit, and the legend that names them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "report/paint.h"

namespace steelyard::report {

struct Part {
  char letter = '?';  // stands in the bar and before the legend's entry
  std::string name;
  std::string size;     // "12.3 GiB"
  double amount = 0.0;  // in the bar's own unit; parts of 0 are left out
  Ink ink = Ink::plain;
};

struct Bar {
  std::vector<Part> parts;
  std::optional<double> limit;  // in the unit of the parts; unknown: the bar is as long as its sum
  std::string limit_text;       // "79.6 GiB", behind the bar or below the mark of the limit
};

// One line; two when the parts go beyond the limit. `width` columns.
[[nodiscard]] std::vector<std::string> bar_lines(const Bar& bar, std::size_t width,
                                                 const Paint& paint);

// The parts with size and share of their sum, in as many columns as `width` allows.
[[nodiscard]] std::vector<std::string> legend_lines(const Bar& bar, std::size_t width,
                                                    const Paint& paint);

// How many cells of `cells` each amount gets: shares of `whole`, in order, so that what the first k
// parts hold together is always rounded as a whole.
[[nodiscard]] std::vector<std::size_t> cells_of(const std::vector<double>& amounts, double whole,
                                                std::size_t cells);

}  // namespace steelyard::report
