// Who else uses the machine, and whether its processor runs at full speed: what a reader must know
// before believing a rate.
#pragma once

#include "facts/measurements.h"
#include "sense/tree.h"

namespace steelyard::probe {

// `threads`: hardware threads that this process may use (schedulable_threads()). A load average
// above a quarter of them and a governor other than "performance" are warnings.
[[nodiscard]] facts::MeasuringConditions conditions_of(const sense::Tree& tree,
                                                       std::int64_t threads);

// By this process's affinity mask, which holds what a cgroup's cpuset allows.
[[nodiscard]] std::vector<int> schedulable_threads();

}  // namespace steelyard::probe
