#include "search/bisection.h"

#include <algorithm>

namespace steelyard::search {

End last_that_holds(std::int64_t from, std::int64_t most,
                    const std::function<bool(std::int64_t)>& holds) {
  std::int64_t low = 0;  // holds
  std::int64_t high = std::clamp<std::int64_t>(from, 1, most);
  while (holds(high)) {
    low = high;
    if (high == most) return {most, true};
    high = high > most / 2 ? most : high * 2;
  }
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (holds(middle) ? low : high) = middle;
  }
  return {low, false};
}

}  // namespace steelyard::search
