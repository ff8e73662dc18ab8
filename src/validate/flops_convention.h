// TFLOP/s and MFU as printed depend on what was counted. The same plan, counted by each convention:
// docs/validation-method.md, "Arithmetic rates".
#pragma once

#include <expected>
#include <string>

#include "base/quantity.h"
#include "facts/cases.h"
#include "facts/plan.h"

namespace steelyard::validate {

// Why a quantity cannot be compared, as one clause: "the plan does not state the step time".
template <class T>
using Comparable = std::expected<T, std::string>;

// What `convention` counts for one sample divided by what the plan's own rates count (forward and
// backward products, causal attention halved, no recomputation).
[[nodiscard]] Comparable<Ratio> counted_per_own(facts::FlopsConvention convention,
                                                const facts::Plan& plan);

// Arithmetic rate of one GPU in the plan, counted by `convention`.
[[nodiscard]] Comparable<FlopsPerSecond> rate_per_gpu(facts::FlopsConvention convention,
                                                      const facts::Plan& plan);

}  // namespace steelyard::validate
