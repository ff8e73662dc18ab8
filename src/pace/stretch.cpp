#include "pace/stretch.h"

#include <cmath>

namespace steelyard::pace {
namespace {

double below(double deviations) {
  return 0.5 * std::erfc(-deviations / std::sqrt(2.0));
}

}  // namespace

// The mean of a largest draw: the integral of 1 - P(all below x) - P(all below -x) over x > 0, in
// the middle of small steps.
double largest_of(std::int64_t count) {
  if (count <= 1) return 0.0;
  constexpr double kFar = 8.0, kStep = 0.05;
  const double n = static_cast<double>(count);
  double mean = 0.0;
  for (double x = kStep / 2.0; x < kFar; x += kStep) {
    mean += kStep * (1.0 - std::pow(below(x), n) - std::pow(below(-x), n));
  }
  return mean;
}

double stretch_of(const facts::EfficiencyConstants& constants, std::int64_t ranks) {
  return 1.0 + constants.step_overhead.value() + constants.rank_spread.value() * largest_of(ranks);
}

}  // namespace steelyard::pace
