// The graph of one rank of an expert-parallel group: it holds some of the experts whole (or, with
// expert tensor parallelism, a part of their features), and tokens travel to the ranks of the
// experts they chose (Megatron-LM core/transformer/moe/token_dispatcher.py).
#pragma once

#include "base/error.h"
#include "facts/job.h"
#include "model/graph.h"

namespace steelyard::step {

// Errors: experts or features that the ranks do not divide, and expert ranks for a model without
// experts.
[[nodiscard]] Result<model::Graph> spread_experts(const model::Graph& graph,
                                                  const facts::ParallelKeys& parallel);

}  // namespace steelyard::step
