// Machines without accelerators.
#pragma once

#include "facts/machine.h"

namespace steelyard::facts {

// The catalogue's entry for the host's own processors: ranks compute there, and what would lie on
// a card lies in their processes.
inline bool computes_on_host(const Gpu& gpu) {
  return gpu.vendor == "host";
}

}  // namespace steelyard::facts
