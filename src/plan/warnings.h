// What a person should know before believing the figures of a plan.
#pragma once

#include "facts/plan.h"
#include "model/graph.h"
#include "plan/plan.h"

namespace steelyard::plan {

// Appends to plan.warnings: kernels that a card lacks, GPUs that are paid for and idle, memory that
// is full within the plan's own error, keys that change nothing. `graph`: of one micro-batch.
void warn(const Request& request, const model::Graph& graph, facts::Plan& plan);

}  // namespace steelyard::plan
