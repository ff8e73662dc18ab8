#include "pace/stretch.h"

#include <cmath>
#include <utility>

namespace steelyard::pace {
namespace {

double below(double deviations) {
  return 0.5 * std::erfc(-deviations / std::sqrt(2.0));
}

}  // namespace

// The mean of a largest draw: the integral of 1 - P(all below x) - P(all below -x) over x > 0, in
// the middle of small steps. Plans of a search ask for the same count again and again.
double largest_of(std::int64_t count) {
  if (count <= 1) return 0.0;
  thread_local std::pair<std::int64_t, double> asked_last{1, 0.0};
  if (asked_last.first == count) return asked_last.second;
  constexpr double kFar = 8.0, kStep = 0.05;
  const double n = static_cast<double>(count);
  double mean = 0.0;
  for (double x = kStep / 2.0; x < kFar; x += kStep) {
    mean += kStep * (1.0 - std::pow(below(x), n) - std::pow(below(-x), n));
  }
  asked_last = {count, mean};
  return mean;
}

double stretch_of(Ratio step_overhead, Ratio rank_spread, std::int64_t ranks) {
  return 1.0 + step_overhead.value() + rank_spread.value() * largest_of(ranks);
}

}  // namespace steelyard::pace
