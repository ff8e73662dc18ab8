#include "probe/spread.h"

#include <algorithm>
#include <vector>

namespace steelyard::probe {

Spread spread_of(std::span<const double> measured) {
  if (measured.empty()) return {};
  std::vector<double> sorted(measured.begin(), measured.end());
  std::sort(sorted.begin(), sorted.end());
  const std::size_t middle = sorted.size() / 2;
  const bool even = sorted.size() % 2 == 0;
  return {.median = even ? (sorted[middle - 1] + sorted[middle]) / 2 : sorted[middle],
          .low = sorted.front(),
          .high = sorted.back(),
          .runs = static_cast<int>(sorted.size())};
}

}  // namespace steelyard::probe
