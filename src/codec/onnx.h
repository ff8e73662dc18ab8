// ONNX files -> facts. Weights are passed over, never read: memory is a few times what is left of
// the file without them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "base/error.h"
#include "facts/onnx.h"

namespace steelyard::codec {

// Limits of what is read; beyond them a file is refused.
struct OnnxLimits {
  std::int64_t nodes = 500'000;           // of all graphs and functions
  std::int64_t tensors = 500'000;         // initializers and constants
  std::int64_t names = 5'000'000;         // inputs and outputs of nodes, attributes, values
  std::uint64_t text = 65'536;            // bytes of a name
  std::uint64_t signature = 16ULL << 20;  // bytes of what torch.export says of its inputs
  std::uint64_t header = 512ULL << 20;    // bytes that are no weights
  std::int64_t depth = 16;                // graphs inside attributes of nodes
  std::int64_t dims = 64;                 // of a tensor
  // Elements of tensors whose values are kept.
  std::int64_t wholes = 4096, reals = 64;
};

// Errors say what was found and at which byte. Data in other files must lie beside or below the
// model; where such a file is there, it must be long enough (a plan needs none of them).
[[nodiscard]] Result<std::shared_ptr<const facts::OnnxModel>> read_onnx(
    const std::filesystem::path& file, const OnnxLimits& limits = {});

}  // namespace steelyard::codec
