// LLaMA's layer with experts (transformers 4: modeling_granitemoe.py, modeling_olmoe.py,
// modeling_qwen2_moe.py, modeling_qwen3_moe.py). They route and name their experts differently, and
// Granite sorts the tokens where the others loop.
#include <algorithm>
#include <limits>
#include <string>

#include "model/decoder_families.h"
#include "model/llama_parts.h"

namespace steelyard::model {

namespace {

constexpr double kAnyReal = std::numeric_limits<double>::max();
constexpr double kSmallestDivisor = 1e-12;
constexpr Limits kExpertLimits{1, 1024};

}  // namespace

MixturePart read_experts(ConfigReader& config, std::string_view count_key,
                         const ExpertDefaults& defaults) {
  MixturePart part;
  // Files of transformers 5 call num_experts of some families num_local_experts (attribute_map).
  part.shape.experts =
      config.whole({count_key, "num_local_experts"}, defaults.experts, kExpertLimits);
  part.shape.chosen = config.whole({"num_experts_per_tok"}, defaults.chosen, kExpertLimits);
  if (part.shape.chosen > part.shape.experts) {
    config.reject(
        "num_experts_per_tok", std::to_string(part.shape.chosen),
        "at most the " + std::to_string(part.shape.experts) + " of " + std::string(count_key));
  }
  part.module = "mlp";
  part.names = {.gate = "gate_proj", .down = "down_proj", .up = "up_proj"};
  part.shape.routing =
      config.flag({"norm_topk_prob"}, false) ? Routing::softmax_normalised : Routing::softmax;
  return part;
}

// The layer's own feed-forward network under another name and width.
MlpPart shared_of(const LlamaLike& llama, const std::string& module, std::int64_t width) {
  MlpPart part = llama.mlp;
  part.module = module;
  part.intermediate = width;
  return part;
}

// Layers without experts: those of mlp_only_layers, and of every decoder_sparse_step all but the
// last.
void mark_dense(ConfigReader& config, const LlamaLike& llama, std::vector<int>& kinds) {
  const std::int64_t step = config.whole({"decoder_sparse_step"}, 1, kLayerLimits);
  const std::vector<std::int64_t> dense =
      config.is_empty_list("mlp_only_layers")
          ? std::vector<std::int64_t>()
          : config.whole_list({"mlp_only_layers"}, {},
                              {.least = 0, .most = llama.sizes.layers - 1});
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    const auto layer = static_cast<std::int64_t>(i);
    const bool listed = std::find(dense.begin(), dense.end(), layer) != dense.end();
    if (listed || (layer + 1) % step != 0) kinds[i] |= kDense;
  }
}

void read_granite_factors(ConfigReader& config, LlamaLike& llama) {
  llama.embedding_multiplier = config.real({"embedding_multiplier"}, 1.0, -kAnyReal, kAnyReal);
  llama.residual_multiplier = config.real({"residual_multiplier"}, 1.0, -kAnyReal, kAnyReal);
  llama.logits_multiplier = 1.0 / config.real({"logits_scaling"}, 1.0, kSmallestDivisor, kAnyReal);
}

MixturePart read_granite_experts(ConfigReader& config, const LlamaLike& llama) {
  MixturePart part = read_experts(config, "num_local_experts", {.experts = 8, .chosen = 2});
  part.module = "block_sparse_moe";
  part.router = "router.layer";
  part.shape.intermediate = llama.mlp.intermediate;
  part.shape.routing = Routing::softmax_of_chosen;
  part.shape.code = ExpertCode::parallel;
  part.activation = llama.mlp.activation;
  return part;
}

Graph build_granitemoe(ConfigReader& config, const SampleShape& sample) {
  LlamaLike llama = read_llama(config,
                               {.vocabulary = 32000,
                                .hidden = 4096,
                                .layers = 32,
                                .heads = 32,
                                .kv_heads = {},
                                .head_dim = {},
                                .max_sequence = 2048,
                                .tied = false},
                               11008);
  const bool bias = config.flag({"attention_bias"}, false);
  llama.attention.qkv_bias = bias;
  llama.attention.out_bias = bias;
  read_granite_factors(config, llama);
  llama.mixture = read_granite_experts(config, llama);
  const std::vector<int> kinds(static_cast<std::size_t>(llama.sizes.layers), 0);
  return finish_llama(config, sample, llama, kinds);
}

Graph build_olmoe(ConfigReader& config, const SampleShape& sample) {
  LlamaLike llama = read_llama(config,
                               {.vocabulary = 50304,
                                .hidden = 2048,
                                .layers = 16,
                                .heads = 16,
                                .kv_heads = {},
                                .head_dim = {},
                                .max_sequence = 4096,
                                .tied = false},
                               2048);
  const bool bias = config.flag({"attention_bias"}, false);
  llama.attention.qkv_bias = bias;
  llama.attention.out_bias = bias;
  llama.attention.qk_norm = QkNorm::rms_whole;
  if (config.has("clip_qkv")) {
    config.reject("clip_qkv", "a number", "null: clamped projections are not built");
  }
  MixturePart part = read_experts(config, "num_experts", {.experts = 64, .chosen = 8});
  part.shape.intermediate = llama.mlp.intermediate;
  part.activation = llama.mlp.activation;
  llama.mixture = part;
  const std::vector<int> kinds(static_cast<std::size_t>(llama.sizes.layers), 0);
  return finish_llama(config, sample, llama, kinds);
}

Graph build_qwen2_moe(ConfigReader& config, const SampleShape& sample) {
  LlamaLike llama = read_llama(config,
                               {.vocabulary = 151936,
                                .hidden = 2048,
                                .layers = 24,
                                .heads = 16,
                                .kv_heads = 16,
                                .head_dim = {},
                                .max_sequence = 32768,
                                .tied = false},
                               5632);
  llama.attention.qkv_bias = config.flag({"qkv_bias"}, true);
  llama.attention.shape.repeats_for_flash = true;
  MixturePart part = read_experts(config, "num_experts", {.experts = 60, .chosen = 4});
  part.shape.intermediate = config.whole({"moe_intermediate_size"}, 1408, kWideLimits);
  part.activation = llama.mlp.activation;
  llama.mixture = part;
  llama.shared = shared_of(llama, "mlp.shared_expert",
                           config.whole({"shared_expert_intermediate_size"}, 5632, kWideLimits));
  std::vector<int> kinds = qwen_windows(config, llama);
  mark_dense(config, llama, kinds);
  return finish_llama(config, sample, llama, kinds);
}

Graph build_qwen3_moe(ConfigReader& config, const SampleShape& sample) {
  LlamaLike llama = read_llama(config,
                               {.vocabulary = 151936,
                                .hidden = 2048,
                                .layers = 24,
                                .heads = 32,
                                .kv_heads = 4,
                                .head_dim = {},
                                .max_sequence = 32768,
                                .tied = false},
                               6144);
  const bool bias = config.flag({"attention_bias"}, false);
  llama.attention.qkv_bias = bias;
  llama.attention.out_bias = bias;
  llama.attention.qk_norm = QkNorm::rms_per_head;
  MixturePart part = read_experts(config, "num_experts", {.experts = 128, .chosen = 8});
  part.shape.intermediate = config.whole({"moe_intermediate_size"}, 768, kWideLimits);
  part.activation = llama.mlp.activation;
  llama.mixture = part;
  std::vector<int> kinds = qwen_windows(config, llama);
  mark_dense(config, llama, kinds);
  return finish_llama(config, sample, llama, kinds);
}

namespace {

// One number, or one for each layer: they have to agree.
std::int64_t same_of_all(ConfigReader& config, std::string_view key, std::int64_t layers) {
  const std::vector<std::int64_t> numbers =
      config.whole_list({key}, {1}, kExpertLimits, static_cast<std::size_t>(layers));
  for (const std::int64_t number : numbers) {
    if (number == numbers.front()) continue;
    config.reject(key, std::to_string(numbers.front()) + " and " + std::to_string(number),
                  "one number for all layers: mixtures that differ are not built");
    break;
  }
  return numbers.front();
}

}  // namespace

Graph build_hunyuan_moe(ConfigReader& config, const SampleShape& sample) {
  LlamaLike llama = read_hunyuan(config);
  MixturePart part;
  part.module = "mlp";
  part.router = "gate.wg";
  part.names = {.gate = "gate_proj", .down = "down_proj", .up = "up_proj"};
  part.shape.experts = same_of_all(config, "num_experts", llama.sizes.layers);
  part.shape.chosen = same_of_all(config, "moe_topk", llama.sizes.layers);
  part.shape.intermediate = llama.mlp.intermediate;
  part.activation = llama.mlp.activation;
  llama.mixture = part;
  llama.shared = shared_of(llama, "mlp.shared_mlp", llama.mlp.intermediate);
  llama.shared_gate = false;
  const std::vector<int> kinds(static_cast<std::size_t>(llama.sizes.layers), 0);
  return finish_llama(config, sample, llama, kinds);
}

// The router runs in fp32 and is corrected by a weight outside of autograd.
Graph build_ernie4_5_moe(ConfigReader& config, const SampleShape& sample) {
  LlamaLike llama = read_ernie(config,
                               {.vocabulary = 103424,
                                .hidden = 2560,
                                .layers = 28,
                                .heads = 20,
                                .kv_heads = 4,
                                .head_dim = {},
                                .max_sequence = 131072,
                                .tied = true},
                               12288);
  if (llama.mlp.bias) {
    config.reject("use_bias", "true", "false: experts with biases are not built");
  }
  const std::int64_t layers = llama.sizes.layers;
  MixturePart part;
  part.module = "mlp";
  part.names = {.gate = "gate_proj", .down = "down_proj", .up = "up_proj"};
  part.shape.experts = config.whole({"moe_num_experts"}, 64, kExpertLimits);
  part.shape.chosen = config.whole({"moe_k"}, 6, kExpertLimits);
  part.shape.intermediate = config.whole({"moe_intermediate_size"}, 1536, kWideLimits);
  part.shape.routing = Routing::softmax_corrected;
  part.shape.wide_router = true;
  part.activation = llama.mlp.activation;
  if (part.shape.chosen > part.shape.experts) {
    config.reject("moe_k", std::to_string(part.shape.chosen), "at most moe_num_experts");
  }
  llama.mixture = part;
  const std::int64_t shared = config.whole({"moe_num_shared_experts"}, 2, {0, 1024});
  if (shared > 0) {
    llama.shared = shared_of(llama, "mlp.shared_experts", part.shape.intermediate * shared);
  }
  llama.shared_gate = false;
  const std::int64_t first = config.whole({"moe_layer_start_index"}, 1, {0, kLayerLimits.most});
  std::int64_t last = config.whole({"moe_layer_end_index"}, -1, {-1, kLayerLimits.most});
  if (last == -1) last = layers - 1;
  const std::int64_t step = config.whole({"moe_layer_interval"}, 1, kLayerLimits);
  std::vector<int> kinds;
  for (std::int64_t i = 0; i < layers; ++i) {
    kinds.push_back((i + 1) % step == 0 && i >= first && i <= last ? 0 : kDense);
  }
  return finish_llama(config, sample, llama, kinds);
}

}  // namespace steelyard::model
