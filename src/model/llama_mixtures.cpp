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

struct ExpertDefaults {
  std::int64_t experts, chosen;
};

MixturePart read_experts(ConfigReader& config, std::string_view count_key,
                         const ExpertDefaults& defaults) {
  MixturePart part;
  part.shape.experts = config.whole({count_key}, defaults.experts, kExpertLimits);
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

}  // namespace

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
  llama.embedding_multiplier = config.real({"embedding_multiplier"}, 1.0, -kAnyReal, kAnyReal);
  llama.residual_multiplier = config.real({"residual_multiplier"}, 1.0, -kAnyReal, kAnyReal);
  llama.logits_multiplier = 1.0 / config.real({"logits_scaling"}, 1.0, kSmallestDivisor, kAnyReal);
  MixturePart part = read_experts(config, "num_local_experts", {.experts = 8, .chosen = 2});
  part.module = "block_sparse_moe";
  part.router = "router.layer";
  part.shape.intermediate = llama.mlp.intermediate;
  part.shape.routing = Routing::softmax_of_chosen;
  part.shape.code = ExpertCode::parallel;
  part.activation = llama.mlp.activation;
  llama.mixture = part;
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
  llama.shared_intermediate = config.whole({"shared_expert_intermediate_size"}, 5632, kWideLimits);
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
  llama.shared_intermediate = llama.mlp.intermediate;
  llama.shared_module = "shared_mlp";
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
  llama.shared_intermediate =
      part.shape.intermediate * config.whole({"moe_num_shared_experts"}, 2, {0, 1024});
  llama.shared_module = "shared_experts";
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

DeltaPart read_delta(ConfigReader& config) {
  DeltaPart part;
  part.taps = config.whole({"linear_conv_kernel_dim"}, 4, {1, 64});
  part.scan.state = config.whole({"linear_key_head_dim"}, 128, kHiddenLimits);
  part.scan.head_dim = config.whole({"linear_value_head_dim"}, 128, kHiddenLimits);
  part.scan.groups = config.whole({"linear_num_key_heads"}, 16, kHeadLimits);
  part.scan.heads = config.whole({"linear_num_value_heads"}, 32, kHeadLimits);
  part.scan.chunk = 64;
  if (part.scan.heads % part.scan.groups != 0) {
    config.reject("linear_num_value_heads", std::to_string(part.scan.heads),
                  "a multiple of linear_num_key_heads = " + std::to_string(part.scan.groups));
  }
  return part;
}

// linear_attention or full_attention of each layer; without a list full_attention_interval says.
std::vector<int> delta_layers(ConfigReader& config, std::int64_t layers) {
  const std::vector<std::string> types = config.text_list({"layer_types"});
  const std::int64_t interval = config.whole({"full_attention_interval"}, 4, kLayerLimits);
  std::vector<int> kinds;
  for (std::int64_t i = 0; i < layers; ++i) {
    kinds.push_back((i + 1) % interval != 0 ? kLinear : 0);
  }
  if (types.empty()) return kinds;
  if (types.size() != kinds.size()) {
    config.reject("layer_types", std::to_string(types.size()) + " entries",
                  "one for each of the " + std::to_string(layers) + " layers (num_hidden_layers)");
    return kinds;
  }
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    kinds[i] = types[i] == "linear_attention" ? kLinear : 0;
    if (types[i] != "linear_attention" && types[i] != "full_attention") {
      config.reject("layer_types", "\"" + types[i] + "\"", "linear_attention or full_attention");
    }
  }
  return kinds;
}

// Three layers of the gated delta rule, then one of attention behind a gate.
Graph build_qwen3_next(ConfigReader& config, const SampleShape& sample) {
  LlamaLike llama = read_llama(config,
                               {.vocabulary = 151936,
                                .hidden = 2048,
                                .layers = 48,
                                .heads = 16,
                                .kv_heads = 2,
                                .head_dim = 256,
                                .max_sequence = 32768,
                                .tied = false},
                               5632);
  llama.attention.qkv_bias = llama.attention.out_bias = config.flag({"attention_bias"}, false);
  llama.attention.qk_norm = QkNorm::rms_per_head_offset;
  llama.attention.output_gate = true;
  llama.attention.rotary_dims = rotary_dims_of(config, llama.sizes.head_dim, 0.25);
  llama.attention.rotary_joins_rest = true;
  llama.unit_offset = true;
  llama.delta = read_delta(config);
  MixturePart part = read_experts(config, "num_experts", {.experts = 512, .chosen = 10});
  part.shape.routing =
      config.flag({"norm_topk_prob"}, true) ? Routing::softmax_normalised : Routing::softmax;
  part.shape.intermediate = config.whole({"moe_intermediate_size"}, 512, kWideLimits);
  part.activation = llama.mlp.activation;
  llama.mixture = part;
  llama.shared_intermediate = config.whole({"shared_expert_intermediate_size"}, 512, kWideLimits);
  std::vector<int> kinds = delta_layers(config, llama.sizes.layers);
  mark_dense(config, llama, kinds);
  return finish_llama(config, sample, llama, kinds);
}

}  // namespace steelyard::model
