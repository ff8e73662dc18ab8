// Threads that step on the host (offload.optimizer): how many a rank has, and what they move.
#pragma once

#include "base/quantity.h"
#include "plan/plan.h"
#include "step/program.h"

namespace steelyard::plan {

// Of a node's memory, what the threads of all its ranks move; 0: no limit that is known.
[[nodiscard]] BytesPerSecond host_stepping(const Request& request, const facts::Job& job,
                                           const facts::Machine& machine);

// Adds to the pace's assumptions with how many threads a step is planned that the host takes.
void tell_host_step(const Request& request, const step::Program& program, facts::Plan& plan);

}  // namespace steelyard::plan
