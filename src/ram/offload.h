// Parameters, gradients and optimizer states that live in host memory, as the frameworks really
// allocate them (docs/model/host-memory.md, "Offload").
#pragma once

#include "base/error.h"
#include "facts/plan.h"
#include "ram/node.h"

namespace steelyard::ram {

// Bytes that the ranks of one node hold for the model's states.
struct OffloadedStates {
  Bytes parameters;
  Bytes gradients;
  Bytes optimizer;
};

// Errors: not_supported for activations on NVMe; impossible_combination for NVMe offload without
// ZeRO.
[[nodiscard]] Result<OffloadedStates> offloaded_states(const Node& node, Notes& notes);

}  // namespace steelyard::ram
