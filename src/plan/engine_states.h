// What an engine that holds the states in buffers of its own does for a job that imports no
// arguments: its defaults, as the words of its profile say (docs/model/megatron.md). An import says
// all of it itself.
#pragma once

#include "base/error.h"
#include "facts/constants.h"
#include "facts/job.h"
#include "model/graph.h"

namespace steelyard::plan {

// Whether the framework's engine is such a one for the job.
[[nodiscard]] bool holds_states(const facts::Job& job, const facts::FrameworkProfile& framework);

// Fills job.megatron and the keys that follow from it: master weights, states, the type that
// gradients are reduced in, checkpoints. Nothing where the profile has no such engine
// (operators.states = "engine_buffers").
// Errors: a sharding that the engine does not have (operators.shardings).
[[nodiscard]] Result<void> resolve_engine(facts::Job& job,
                                          const facts::FrameworkProfile& framework);

// The workspaces of the engine's products: more where a mixture's are multiplied in groups, and
// where products run beside their communication.
void resolve_workspaces(facts::Job& job, const model::Graph& graph,
                        const facts::FrameworkProfile& framework);

}  // namespace steelyard::plan
