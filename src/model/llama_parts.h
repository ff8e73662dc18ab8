// LLaMA's layer and its variations, for the families that are built of it.
#pragma once

#include <cstdint>
#include <functional>
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

enum class LayerNorm {
  rms,
  rms_offset,  // times (1 + weight)
  layer,       // weight and bias
  plain_wide,  // a LayerNorm without weights, in fp32
};

struct LlamaLike {
  Sizes sizes;
  AttentionPart attention;
  MlpPart mlp;
  std::int64_t window = 0;  // of layers with kWindowed
  std::optional<double> embedding_multiplier;
  std::optional<double> residual_multiplier;
  std::optional<double> logits_multiplier;
  std::optional<MixturePart> mixture;  // instead of the feed-forward network; not with kDense
  std::optional<MlpPart> shared = {};  // an expert of all tokens beside them
  bool shared_gate = true;             // of each token, in front of it
  NormNames norms = {};
  bool head_bias = false;
  LayerNorm norm = LayerNorm::rms;
  // The mixer of layers with kLinear.
  std::function<TensorRef(BlockBuilder&, TensorRef)> other_mixer = {};
  std::string final_norm = "norm";
  std::string embedding = "model.embed_tokens", head = "lm_head";
  std::string layers = "layers";
  double residual_dropout = 0.0;  // of both halves' results
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
constexpr int kLinear = 8;    // LlamaLike::other_mixer in attention's place

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
// Experts that are modules of their own, named as LLaMA's feed-forward network.
struct ExpertDefaults {
  std::int64_t experts, chosen;
};
[[nodiscard]] MixturePart read_experts(ConfigReader& config, std::string_view count_key,
                                       const ExpertDefaults& defaults);
[[nodiscard]] MlpPart shared_of(const LlamaLike& llama, const std::string& module,
                                std::int64_t width);
void mark_dense(ConfigReader& config, const LlamaLike& llama, std::vector<int>& kinds);
// Granite's multipliers and experts.
void read_granite_factors(ConfigReader& config, LlamaLike& llama);
[[nodiscard]] MixturePart read_granite_experts(ConfigReader& config, const LlamaLike& llama);
[[nodiscard]] LlamaPlan plan_llama(ConfigReader& config);
[[nodiscard]] LlamaPlan plan_mistral(ConfigReader& config);
[[nodiscard]] LlamaPlan plan_qwen2(ConfigReader& config);
[[nodiscard]] LlamaPlan plan_qwen3_5(ConfigReader& config);
[[nodiscard]] LlamaPlan plan_qwen3(ConfigReader& config);
[[nodiscard]] Block llama_layer(const Graph& graph, const LlamaLike& llama, int kind);
[[nodiscard]] TextStack text_stack_of(LlamaPlan plan, const TextNames& names);
[[nodiscard]] Graph finish_llama(ConfigReader& config, const SampleShape& sample,
                                 const LlamaLike& llama, const std::vector<int>& kinds);

}  // namespace steelyard::model
