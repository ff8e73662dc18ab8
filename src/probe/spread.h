// What repeated measurements of one thing say: their middle, and how far apart they lie.
#pragma once

#include <span>

#include "base/quantity.h"

namespace steelyard::probe {

struct Spread {
  double median = 0;  // in the unit of what was measured
  double low = 0;
  double high = 0;
  int runs = 0;

  // (high - low) / median: above a tenth, something else used the machine.
  [[nodiscard]] Ratio relative() const { return Ratio(median > 0 ? (high - low) / median : 0); }
};

// All zero for no measurement.
[[nodiscard]] Spread spread_of(std::span<const double> measured);

}  // namespace steelyard::probe
