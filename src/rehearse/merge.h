// The rehearsals of the processes of one synchronous job as one.
#pragma once

#include <vector>

#include "facts/rehearsal.h"

namespace steelyard::rehearse {

// parts: of all, in the order of ranks, each with its `crew`; at least one. Rates, samples, stages
// and faults are sums; utilization is that of the steps, which all have in common; memory and nodes
// are those of the first rank (each rank's own memory is in `crew`). `crew.slowest`: the rank whose
// own data kept it waiting longest, where that was more than a thousandth of the time.
[[nodiscard]] facts::Rehearsal merged(std::vector<facts::Rehearsal> parts);

}  // namespace steelyard::rehearse
