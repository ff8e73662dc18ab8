// An ONNX graph -> a model's graph: shapes are inferred for the job's batch, sequence and picture,
// arithmetic on shapes is carried out, and what is left becomes operators of one block with a loss.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "facts/onnx.h"
#include "model/graph.h"
#include "model/model.h"

namespace steelyard::model {

// What was inferred, for those who want to compare.
struct OnnxShapes {
  std::map<std::string, Shape, std::less<>> by_value;
};

// `name` appears in messages. Errors name the node, what was found and what is accepted: unknown
// operators, names used twice, cycles, shapes that do not meet, shapes that depend on data.
[[nodiscard]] Result<Graph> build_onnx(const facts::OnnxModel& model, const std::string& name,
                                       const SampleShape& sample, OnnxShapes* shapes = nullptr);

// Every operator that can be lowered, sorted.
[[nodiscard]] std::vector<std::string> known_onnx_operators();

}  // namespace steelyard::model
