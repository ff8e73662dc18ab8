// A model before it is a graph: its own configuration and where that came from, or its graph from a
// file.
#pragma once

#include <memory>
#include <string>

#include "facts/value.h"

namespace steelyard::facts {

struct OnnxModel;      // facts/onnx.h
struct StoredTensors;  // facts/stored_tensors.h

struct ModelSource {
  std::string name{};    // catalogue id, file name, or "inline"
  Value config{};        // Hugging Face style keys, overrides of [model] set already applied
  std::string source{};  // where the figures come from; empty when the user's own
  // An ONNX file; then there is no configuration.
  std::shared_ptr<const OnnxModel> onnx{};
  // The weights that lie beside the configuration and have to agree with it; null: none named.
  std::shared_ptr<const StoredTensors> stored{};
};

}  // namespace steelyard::facts
