// What encoder-decoders share: one graph of two stacks. The encoder's layers come first; the block
// "middle" norms what they put out into a shared tensor, which all layers of the decoder read, and
// begins the decoder's own stream.
#pragma once

#include <string>

#include "model/family.h"

namespace steelyard::model {

// Indices of the shared tensors that every encoder-decoder has. The loader brings the first four.
constexpr TensorRef kSourceIds{true, 0};      // [B,S]
constexpr TensorRef kTargetIds{true, 1};      // [B,T]
constexpr TensorRef kTargetLabels{true, 2};   // [B,T]
constexpr TensorRef kSourceMask{true, 3};     // [B,S]
constexpr TensorRef kSourcePadding{true, 4};  // [B,1,1,S], what is added to scores
constexpr TensorRef kEncoderStates{true, 5};  // [B,S,H]

// A graph with these tensors; T is the sample's decoder_sequence, or S.
[[nodiscard]] Graph start_encoder_decoder(const ConfigReader& config, const Sizes& sizes,
                                          const SampleShape& sample);

// [B,S,H] of encoder and [B,T,H] of decoder.
[[nodiscard]] Shape source_stream(const Graph& graph);
[[nodiscard]] Shape target_stream(const Graph& graph);

}  // namespace steelyard::model
