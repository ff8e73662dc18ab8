// Headers of .safetensors files and of their index: what tensors they hold. Weights are never read.
//
// Format (huggingface.co/docs/safetensors): 8 bytes, the length of the header; the header, a JSON
// object of {"dtype", "shape", "data_offsets": [begin, end]} by name; the data, without holes.
// Index: {"weight_map": {tensor: file}}, files beside it.
#pragma once

#include <filesystem>
#include <memory>

#include "base/error.h"
#include "facts/stored_tensors.h"

namespace steelyard::codec {

// One file.
[[nodiscard]] Result<std::shared_ptr<const facts::StoredTensors>> read_safetensors(
    const std::filesystem::path& file);
// All files that an index names.
[[nodiscard]] Result<std::shared_ptr<const facts::StoredTensors>> read_safetensors_index(
    const std::filesystem::path& file);

}  // namespace steelyard::codec
