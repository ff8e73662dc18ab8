// What `steelyard probe` found on a machine, and the machine as a plan reads it.
#pragma once

#include "facts/machine.h"
#include "facts/topology.h"

namespace steelyard::facts {

struct Probe {
  Topology topology;
  Machine machine;
};

}  // namespace steelyard::facts
