// What no kernel shows of a step: jitter, logging, garbage collection, and that ranks which wait
// for each other go at the pace of the slowest of them (docs/model/compute.md, "The slowest GPU").
#pragma once

#include <cstdint>

#include "base/quantity.h"

namespace steelyard::pace {

// How far the largest of `count` draws from a normal distribution lies above its middle on average,
// in deviations: 0 of one, 1.42 of eight, 3.04 of 512.
[[nodiscard]] double largest_of(std::int64_t count);

// The step of `ranks` GPUs over the sum of its kernels, with two of facts::EfficiencyConstants.
[[nodiscard]] double stretch_of(Ratio step_overhead, Ratio rank_spread, std::int64_t ranks);

}  // namespace steelyard::pace
