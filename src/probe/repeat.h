// Repeating a measurement until its results lie close together or its time is used up.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/quantity.h"
#include "facts/measurements.h"
#include "probe/spread.h"

namespace steelyard::probe {

struct Repetition {
  Seconds budget = Seconds(1);  // no new run begins that would end later, going by the longest
  int least = 3;                // runs, unless they take more than twice the budget
  int most = 30;
  // The runs whose spread counts: the middle half, because one disturbed run says nothing about the
  // others.
  Ratio close = Ratio(0.03);
};

using Clock = std::function<double()>;  // seconds, never going back
[[nodiscard]] double monotonic_seconds();

// The results of `run` (any unit, positive) in the order in which they came. A run that gives
// nothing ends it, and so does a signal (interruption.h).
[[nodiscard]] std::vector<double> repeat(const std::function<std::optional<double>()>& run,
                                         const Repetition& repetition,
                                         const Clock& clock = monotonic_seconds);

// (third quartile - first quartile) / median; 0 for fewer than two.
[[nodiscard]] Ratio middle_half(std::vector<double> measured);

// Above this the runs differ so much that something else used the machine.
inline constexpr Ratio kNoisy{0.10};
// "the runs differ by 23 %: ..." or nothing; takes the middle half where there are four or more.
[[nodiscard]] std::optional<std::string> noise_warning(std::span<const double> measured);

// Rates as a figure with its words.
template <class Quantity>
[[nodiscard]] facts::Repeated<Quantity> measured(std::span<const double> rates, std::string how) {
  const Spread spread = spread_of(rates);
  return {.median = Quantity(spread.median),
          .low = Quantity(spread.low),
          .high = Quantity(spread.high),
          .runs = spread.runs,
          .how = std::move(how),
          .warning = noise_warning(rates)};
}

}  // namespace steelyard::probe
