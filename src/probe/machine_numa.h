// The NUMA nodes of a probed machine, and what hangs on them, as a machine file carries them.
#pragma once

#include <vector>

#include "facts/numa.h"
#include "facts/topology.h"

namespace steelyard::probe {

// `gpus`: those that the machine file counts. Nodes that are a GPU's own memory are left out;
// nothing hangs on what the kernel names no node for (node -1 of virtual machines).
[[nodiscard]] facts::HostNuma host_numa(const facts::Topology& topology,
                                        const std::vector<const facts::GpuDevice*>& gpus);

}  // namespace steelyard::probe
