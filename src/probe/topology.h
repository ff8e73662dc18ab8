// What this machine, or a recorded one, is built of: every reading of `sense` put together, checked
// against hwloc, with warnings where a figure should not be believed.
#pragma once

#include "facts/topology.h"
#include "sense/tree.h"
#include "sense/words.h"

namespace steelyard::probe {

// Reads files only; vendor libraries are asked by gpus.h.
[[nodiscard]] facts::Topology topology(const sense::Tree& tree,
                                       const sense::Environment& environment);

// Adds what is worth a warning in the readings themselves.
void warn(facts::Topology& topology);

}  // namespace steelyard::probe
