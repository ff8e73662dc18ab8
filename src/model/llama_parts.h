// LLaMA's layer and its variations, for the families that are built of it.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "model/decoder_parts.h"
#include "model/family.h"

namespace steelyard::model {

struct LlamaLike {
  Sizes sizes;
  AttentionPart attention;
  MlpPart mlp;
  std::int64_t window = 0;  // of layers with kWindowed
  std::optional<double> embedding_multiplier;
  std::optional<double> residual_multiplier;
  std::optional<double> logits_multiplier;
  std::optional<MixturePart> mixture;    // instead of the feed-forward network; not with kDense
  std::int64_t shared_intermediate = 0;  // an expert of all tokens beside them; 0: none
};

// What sets layers apart, as bits of add_layers' kind.
constexpr int kWindowed = 1;
constexpr int kDense = 2;

// The keys that all of them share.
[[nodiscard]] LlamaLike read_llama(ConfigReader& config, const SizeDefaults& defaults,
                                   std::int64_t default_intermediate);
// Qwen: with use_sliding_window the layers from max_window_layers on have a window.
[[nodiscard]] std::vector<int> qwen_windows(ConfigReader& config, LlamaLike& llama);
[[nodiscard]] Graph finish_llama(ConfigReader& config, const SampleShape& sample,
                                 const LlamaLike& llama, const std::vector<int>& kinds);

}  // namespace steelyard::model
