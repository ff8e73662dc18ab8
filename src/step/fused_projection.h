// Queries, keys and values out of one projection, where the framework's own model code has one for
// models whose configuration names three (word `attention_projection` = "fused" of the profile;
// litgpt/model.py, CausalSelfAttention: one nn.Linear, split into views). Whoever keeps a part
// keeps the storage of all: attention keeps its values, and with them the whole projection.
#pragma once

#include "base/error.h"
#include "facts/constants.h"
#include "model/graph.h"

namespace steelyard::step {

// The graph as the framework builds it; the model's own where the profile does not say otherwise.
// Errors: a word that nobody knows.
[[nodiscard]] Result<model::Graph> with_own_projections(const model::Graph& graph,
                                                        const facts::FrameworkProfile& profile);

}  // namespace steelyard::step
