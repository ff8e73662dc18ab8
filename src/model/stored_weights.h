// A graph against the weights that lie beside its configuration.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "facts/stored_tensors.h"
#include "model/graph.h"

namespace steelyard::model {

// Full name -> shape of every weight that is not tied, as in the model's state dict.
[[nodiscard]] std::map<std::string, Shape> state_dict_of(const Graph& graph);

// Weights that the files lack: those of a new head, where `check_stored` lets the files pass.
[[nodiscard]] std::vector<std::string> newly_made(const Graph& graph,
                                                  const facts::StoredTensors& stored);

// Errors name the first tensors that are missing, of another shape, of a quantized type, or in the
// files and not in the graph (buffers and small heads left out). The head of a classifier may be
// missing.
[[nodiscard]] Result<void> check_stored(const Graph& graph, const facts::StoredTensors& stored);

}  // namespace steelyard::model
