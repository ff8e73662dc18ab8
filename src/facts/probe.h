// What `steelyard probe` found on a machine, and the machine as a plan reads it.
#pragma once

#include <optional>

#include "facts/machine.h"
#include "facts/measurements.h"
#include "facts/topology.h"

namespace steelyard::facts {

struct Probe {
  Topology topology;
  std::optional<Measurements> measurements;  // nothing of a recorded machine
  Machine machine;
};

}  // namespace steelyard::facts
