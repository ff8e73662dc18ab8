#include "probe/repeat.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "base/format.h"
#include "probe/interruption.h"

namespace steelyard::probe {

double monotonic_seconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

std::vector<double> repeat(const std::function<std::optional<double>()>& run,
                           const Repetition& repetition, const Clock& clock) {
  std::vector<double> results;
  const double end = clock() + repetition.budget.value();
  double longest = 0;
  for (int count = 0; count < repetition.most; ++count) {
    if (interrupted()) break;
    const double begin = clock();
    // A host so busy that the least would take more than twice its time gets fewer.
    if (count > 0 && begin > end + repetition.budget.value()) break;
    if (count >= repetition.least) {
      if (begin + longest > end) break;
      if (count >= 5 && middle_half(results) <= repetition.close) break;
    }
    const std::optional<double> result = run();
    if (!result) break;
    results.push_back(*result);
    longest = std::max(longest, clock() - begin);
  }
  return results;
}

Ratio middle_half(std::vector<double> measured) {
  if (measured.size() < 2) return Ratio(0);
  std::sort(measured.begin(), measured.end());
  const std::size_t cut = measured.size() / 4;
  const Spread all = spread_of(measured);
  if (all.median <= 0) return Ratio(0);
  return Ratio((measured[measured.size() - 1 - cut] - measured[cut]) / all.median);
}

std::optional<std::string> noise_warning(std::span<const double> measured) {
  if (measured.size() == 1) return "one run only: its spread is not known";
  const Ratio apart = middle_half({measured.begin(), measured.end()});
  if (apart <= kNoisy) return std::nullopt;
  return fmt::format(
      "the runs differ by {}: something else used the machine, or it changes its speed",
      percent(apart));
}

}  // namespace steelyard::probe
