// A walk over the layers of a graph one by one, where a method tells them apart by their number.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "model/graph.h"

namespace steelyard::step {

// `change` gets every block of every round of a segment: the number of the segment, and the prefix
// of its names in the state dict ("model.layers.3."; of what is no layer none).
using ChangeBlock =
    std::function<void(model::Block&, std::size_t segment, const std::string& prefix)>;

// The graph with every block changed; rounds of a segment that stay alike stay together.
[[nodiscard]] model::Graph by_layer(model::Graph graph, const ChangeBlock& change);

}  // namespace steelyard::step
