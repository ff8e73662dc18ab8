#include "ram/pinned.h"

#include <algorithm>

#include "base/power_of_two.h"
#include "ram/ram.h"

namespace steelyard::ram {

Bytes pinned(Bytes requested) {
  return next_power_of_two(requested);
}

Ratio rounding_of(const std::vector<step::WeightSize>& weights, const PinnedTensors& tensors) {
  double asked = 0.0;
  double taken = 0.0;
  for (const step::WeightSize& weight : weights) {
    if (!(weight.trains ? tensors.trainable : tensors.frozen)) continue;
    const double whole = tensors.bytes_per_element
                             ? *tensors.bytes_per_element * static_cast<double>(weight.elements)
                             : weight.bytes.real();
    const Bytes part = ceil_divide(Bytes(static_cast<std::int64_t>(whole)), tensors.parts);
    if (part == Bytes()) continue;
    asked += part.real() * static_cast<double>(weight.times);
    taken += pinned(part).real() * static_cast<double>(weight.times);
  }
  return asked > 0.0 ? Ratio(taken / asked) : kRoundingOfUnknown;
}

Bytes page_locked(Bytes requested, bool pin) {
  return pin ? pinned(requested) : requested;
}

}  // namespace steelyard::ram
