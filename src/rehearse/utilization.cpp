#include "rehearse/utilization.h"

namespace steelyard::rehearse {

Ratio utilization(std::span<const Step> steps, std::size_t excluded) {
  Seconds computed;
  Seconds passed;
  for (std::size_t i = excluded; i < steps.size(); ++i) {
    computed += steps[i].computed;
    passed += steps[i].waited + steps[i].computed;
  }
  return passed.value() > 0 ? computed / passed : Ratio(0);
}

}  // namespace steelyard::rehearse
