// Decoders that read pictures among their tokens: the graph's beginning, the block in which a
// picture's features take the places of its tokens, and the decoder behind it.
#pragma once

#include <cstdint>
#include <string>

#include "model/text_stack.h"

namespace steelyard::model {

// Shared tensors besides kTokenIds, kCos and kSin, which come first.
constexpr TensorRef kPixelValues{true, 3};

// Pictures of the micro-batch: of each sample as many as the job says, or one.
[[nodiscard]] std::int64_t pictures_of(const SampleShape& sample);

struct PicturesOfSample {
  Shape pixels;                        // of the micro-batch, as the loader brings them
  std::int64_t height = 0, width = 0;  // of one, in pixels
  std::int64_t tokens = 0;             // that all pictures of a sample become
};

// A graph with the tensors that all blocks share, still without blocks.
[[nodiscard]] Graph start_picture_text(ConfigReader& config, const TextStack& text,
                                       const SampleShape& sample, const PicturesOfSample& pictures);

// In the block "middle": the tokens, the features in the places of some, the rotary tables.
[[nodiscard]] TensorRef add_merged_embedding(const Graph& graph, BlockBuilder& block,
                                             const TextStack& text, TensorRef features);
// The same without pictures.
[[nodiscard]] TensorRef add_plain_embedding(const Graph& graph, BlockBuilder& block,
                                            const TextStack& text);
// Layers and head.
void add_text_layers(Graph& graph, const TextStack& text);

}  // namespace steelyard::model
