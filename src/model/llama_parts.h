// LLaMA's layer and its variations, for the families that are built of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/decoder_parts.h"
#include "model/family.h"
#include "model/text_stack.h"

namespace steelyard::model {

// Of a layer's norms; an empty name: not there.
struct NormNames {
  std::string before_attention = "input_layernorm", behind_attention;
  std::string before_mlp = "post_attention_layernorm", behind_mlp;
};

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
  std::string shared_module = "shared_expert";
  bool shared_gate = true;  // of each token, in front of it
  NormNames norms = {};
  bool head_bias = false;
  bool unit_offset = false;             // norms multiply by (1 + weight)
  std::optional<DeltaPart> delta = {};  // the mixer of layers with kLinear
  double residual_dropout = 0.0;        // of both halves' results
  // OLMo 2: norms multiply in fp32, queries and keys turn in fp32.
  bool wide = false;
  bool wide_tables = false;    // the rotary tables are in fp32 (ERNIE)
  bool window_tables = false;  // layers with kWindowed turn by a table of their own (OLMo 3)
  std::string root = "model";  // of the names of all weights but the head's
};

// A family's configuration, read, and the kind of each of its layers.
struct LlamaPlan {
  LlamaLike llama;
  std::vector<int> kinds;
};

// What sets layers apart, as bits of add_layers' kind.
constexpr int kWindowed = 1;
constexpr int kDense = 2;
constexpr int kUnturned = 4;  // without rotary positions
constexpr int kLinear = 8;    // LlamaLike::delta in attention's place

// The keys that all of them share.
[[nodiscard]] LlamaLike read_llama(ConfigReader& config, const SizeDefaults& defaults,
                                   std::int64_t default_intermediate);
// Qwen: with use_sliding_window the layers from max_window_layers on have a window.
[[nodiscard]] std::vector<int> qwen_windows(ConfigReader& config, LlamaLike& llama);
// The same without the activation.
[[nodiscard]] LlamaLike read_llama_sizes(ConfigReader& config, const SizeDefaults& defaults,
                                         std::int64_t default_intermediate);
// HunYuan: queries and keys are normed behind their turn.
[[nodiscard]] LlamaLike read_hunyuan(ConfigReader& config);
// ERNIE 4.5: neighbours turn by tables in fp32.
[[nodiscard]] LlamaLike read_ernie(ConfigReader& config, const SizeDefaults& defaults,
                                   std::int64_t default_intermediate);
// Of the gated delta rule, and which layers have it (kLinear).
[[nodiscard]] DeltaPart read_delta(ConfigReader& config);
[[nodiscard]] std::vector<int> delta_layers(ConfigReader& config, std::int64_t layers);
[[nodiscard]] LlamaPlan plan_llama(ConfigReader& config);
[[nodiscard]] LlamaPlan plan_mistral(ConfigReader& config);
[[nodiscard]] LlamaPlan plan_qwen2(ConfigReader& config);
[[nodiscard]] LlamaPlan plan_qwen3(ConfigReader& config);
[[nodiscard]] Block llama_layer(const Graph& graph, const LlamaLike& llama, int kind);
[[nodiscard]] TextStack text_stack_of(LlamaPlan plan, const TextNames& names);
[[nodiscard]] Graph finish_llama(ConfigReader& config, const SampleShape& sample,
                                 const LlamaLike& llama, const std::vector<int>& kinds);

}  // namespace steelyard::model
