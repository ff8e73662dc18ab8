// How Megatron-LM spreads layers over pipeline stages and their model chunks.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/error.h"
#include "exchange/megatron_arguments.h"

namespace steelyard::exchange {

struct PipelineLayout {
  std::int64_t stages = 1;
  std::int64_t chunks = 1;  // model chunks per stage
  // Layers of each chunk in the order of the model: chunk 0 of stage 0, of stage 1 ..., then
  // chunk 1 of stage 0 ...
  std::vector<std::int64_t> layers;

  [[nodiscard]] bool even() const;
  [[nodiscard]] std::vector<std::int64_t> stage_layers() const;
};

// What counts more than the arguments; none: theirs.
struct PipelineSizes {
  std::optional<std::int64_t> stages, chunks;
};

// megatron/core/transformer/transformer_block.py (get_num_layers_to_build) and
// pipeline_parallel_layer_layout.py (--pipeline-model-parallel-layout, "Et*3|(tt|)*6mL").
// Errors: numbers that do not divide, a layout that cannot be read.
[[nodiscard]] Result<PipelineLayout> pipeline_layout(const MegatronArguments& arguments,
                                                     std::int64_t layers,
                                                     const PipelineSizes& sizes = {});

}  // namespace steelyard::exchange
