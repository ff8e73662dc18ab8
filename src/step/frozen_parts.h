// Parts of a model that do not train though the method is full: train.trainable, train.frozen.
#pragma once

#include <string_view>

#include "base/error.h"
#include "facts/job.h"
#include "model/graph.h"

namespace steelyard::step {

// A pattern names whole parts of a name between dots: "vision_tower", "mlp.fc1", "layers.0",
// "bias".
// `*` stands for any text.
[[nodiscard]] bool names_part(std::string_view pattern, std::string_view name);

// The graph with its frozen weights told; layers of a segment that then differ stand apart. With
// adapters, no adapter is put beside a frozen weight, and what `trainable` names trains in full.
// For adapters only `frozen` is told here (LowRank in adapters.cpp reads the rest).
// Errors: a pattern that names nothing.
[[nodiscard]] Result<model::Graph> with_frozen_parts(model::Graph graph, const facts::Job& job);

// Arithmetic of one backward pass: of every weight that trains, and of what lies between it and the
// loss.
[[nodiscard]] Flops backward_flops(const model::Graph& graph);

}  // namespace steelyard::step
