// Machines without accelerators.
#pragma once

#include <algorithm>
#include <cstdint>

#include "facts/machine.h"

namespace steelyard::facts {

// The catalogue's entry for the host's own processors: ranks compute there, and what would lie on
// a card lies in their processes.
inline bool computes_on_host(const Gpu& gpu) {
  return gpu.vendor == "host";
}

// GPUs that copy at the same time over the lanes which a PCIe switch has to the host.
inline double sharers_of_uplink(const Machine& machine, std::int64_t gpus) {
  const std::int64_t behind = machine.host.gpus_per_uplink.value.value_or(1);
  return static_cast<double>(std::max<std::int64_t>(1, std::min(behind, gpus)));
}

}  // namespace steelyard::facts
