// The first header of the room: graph + job -> the program of one rank for one step.
#pragma once

#include "base/error.h"
#include "facts/constants.h"
#include "facts/job.h"
#include "model/graph.h"
#include "step/program.h"

namespace steelyard::step {

// `job` is resolved (plan/resolve.h). Keys whose effect is not built yet are a not_supported error
// that names the key.
[[nodiscard]] Result<Program> program_of(const model::Graph& graph, const facts::Job& job,
                                         const facts::FrameworkProfile& profile);

}  // namespace steelyard::step
