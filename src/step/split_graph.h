// A model's graph as a job's ranks hold it, before pipeline stages divide it.
#pragma once

#include <memory>
#include <vector>

#include "base/error.h"
#include "facts/constants.h"
#include "facts/job.h"
#include "step/adapters.h"
#include "step/fp8.h"
#include "step/pipeline.h"
#include "step/step.h"

namespace steelyard::step {

struct SplitGraph {
  Stage whole;         // all of the model, as trained
  Stage held;          // what of it one rank makes and loads: tables as placed
  model::Graph local;  // what one rank computes, context ranks included
};

// A graph without its segments.
[[nodiscard]] model::Graph without_segments(const model::Graph& graph);
// All that a graph says but its segments.
[[nodiscard]] bool alike_but_segments(const model::Graph& a, const model::Graph& b);

// Companions are joined to the graph. Where `use` has a workshop, jobs that split the same graph
// alike share the result.
[[nodiscard]] Result<std::shared_ptr<const SplitGraph>> split_graph(
    const model::Graph& graph, const facts::Job& job, const facts::FrameworkProfile& profile,
    const AdapterHabits& habits, const Fp8& fp8, const std::vector<Companion>& companions,
    const ModelUse& use);

// Errors: those of `stages_of`, known before anything is split.
[[nodiscard]] Result<void> check_stages(const model::Graph& graph, const facts::Job& job);

}  // namespace steelyard::step
