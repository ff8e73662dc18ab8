// Decoders whose layers mix tokens in two ways: attention in some, in the others the gated delta
// rule, Mamba-2 or a short convolution (transformers 4.57: modeling_qwen3_next.py,
// modeling_bamba.py, modeling_granitemoehybrid.py, modeling_lfm2.py). As their fast paths run them.
#include <algorithm>
#include <string>
#include <vector>

#include "model/decoder_families.h"
#include "model/llama_parts.h"

namespace steelyard::model {

namespace {

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

MambaPart read_mamba(ConfigReader& config, std::int64_t hidden) {
  MambaPart part;
  const std::int64_t inner = hidden * config.whole({"mamba_expand"}, 2, {1, 1024});
  ScanShape& scan = part.scan;
  scan.heads = config.whole({"mamba_n_heads"}, 128, kHeadLimits);
  const std::int64_t usual = std::max<std::int64_t>(1, inner / scan.heads);
  scan.head_dim = config.is_text("mamba_d_head", "auto")
                      ? usual
                      : config.whole({"mamba_d_head"}, usual, kHiddenLimits);
  if (scan.channels() != inner) {
    config.reject(
        "mamba_n_heads", std::to_string(scan.heads),
        "heads whose channels are mamba_expand times hidden_size: " + std::to_string(inner));
  }
  scan.groups = config.whole({"mamba_n_groups"}, 1, kHeadLimits);
  scan.state = config.whole({"mamba_d_state"}, 256, kHiddenLimits);
  scan.chunk = config.whole({"mamba_chunk_size"}, 256, {1, 65'536});
  part.taps = config.whole({"mamba_d_conv"}, 4, {1, 64});
  part.conv_bias = config.flag({"mamba_conv_bias"}, true);
  part.bias = config.flag({"mamba_proj_bias"}, false);
  return part;
}

// kLinear for the layers that `other` names; `attention` for the others.
std::vector<int> mixers_of(ConfigReader& config, std::int64_t layers, std::string_view other,
                           std::string_view attention) {
  const std::vector<std::string> types = config.text_list({"layer_types", "layers_block_type"});
  std::vector<int> kinds(static_cast<std::size_t>(layers), kLinear);
  if (types.empty()) return kinds;
  if (types.size() != kinds.size()) {
    config.reject("layer_types", std::to_string(types.size()) + " entries",
                  "one for each of the " + std::to_string(layers) + " layers (num_hidden_layers)");
    return kinds;
  }
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    kinds[i] = types[i] == other ? kLinear : 0;
    if (types[i] != other && types[i] != attention) {
      config.reject("layer_types", "\"" + types[i] + "\"",
                    std::string(other) + " or " + std::string(attention));
    }
  }
  return kinds;
}

void scan_with(LlamaLike& llama, const MambaPart& part) {
  llama.other_mixer = [part](BlockBuilder& block, TensorRef x) {
    return add_mamba2(block, x, part);
  };
}

// Lfm2ShortConv.cuda_kernels_forward: C * conv(B * x).
TensorRef add_short_conv(BlockBuilder& block, TensorRef x, std::int64_t taps, bool bias) {
  const Shape sample = block.shape(x);
  const std::int64_t hidden = sample.back();
  const TensorRef all = block.linear("conv.in_proj", x, 3 * hidden, {.bias = bias});
  const auto parts = block.split("conv.split", all, {{"B", hidden}, {"C", hidden}, {"x", hidden}});
  TensorRef h = block.multiply("conv.Bx", parts[0], parts[2]);
  h = block.view("conv.channels", h, {sample[0], hidden, sample[1]});
  h = block.conv_over_time("conv.conv", h, hidden,
                           {.kernel = taps, .padding = taps / 2, .groups = hidden, .bias = bias});
  h = block.view("conv.tokens", h, sample);
  h = block.multiply("conv.Cy", parts[1], h);
  return block.linear("conv.out_proj", h, hidden, {.bias = bias});
}

// Norms that multiply by (1 + weight), a quarter of each head turning, a gate of the result.
void read_gated_attention(ConfigReader& config, LlamaLike& llama) {
  llama.attention.qkv_bias = llama.attention.out_bias = config.flag({"attention_bias"}, false);
  llama.attention.qk_norm = QkNorm::rms_per_head_offset;
  llama.attention.output_gate = true;
  llama.attention.rotary_dims = rotary_dims_of(config, llama.sizes.head_dim, 0.25);
  llama.attention.rotary_joins_rest = true;
  llama.norm = LayerNorm::rms_offset;
}

std::int64_t lfm2_width(ConfigReader& config) {
  std::int64_t width = config.whole({"block_ff_dim", "intermediate_size"}, 12288, kWideLimits);
  if (!config.flag({"block_auto_adjust_ff_dim"}, true)) return width;
  width = 2 * width / 3;
  if (config.is_null("block_ffn_dim_multiplier")) return width;
  const double factor = config.real({"block_ffn_dim_multiplier"}, 1.0, 0.0, 1024.0);
  width = static_cast<std::int64_t>(factor * static_cast<double>(width));
  const std::int64_t multiple = config.whole({"block_multiple_of"}, 256, kWideLimits);
  return multiple * ((width + multiple - 1) / multiple);
}

}  // namespace

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
  read_gated_attention(config, llama);
  llama.other_mixer = [delta = read_delta(config)](BlockBuilder& block, TensorRef x) {
    return add_delta_net(block, x, delta);
  };
  MixturePart part = read_experts(config, "num_experts", {.experts = 512, .chosen = 10});
  part.shape.routing =
      config.flag({"norm_topk_prob"}, true) ? Routing::softmax_normalised : Routing::softmax;
  part.shape.intermediate = config.whole({"moe_intermediate_size"}, 512, kWideLimits);
  part.activation = llama.mlp.activation;
  llama.mixture = part;
  llama.shared = shared_of(llama, "mlp.shared_expert",
                           config.whole({"shared_expert_intermediate_size"}, 512, kWideLimits));
  std::vector<int> kinds = delta_layers(config, llama.sizes.layers);
  mark_dense(config, llama, kinds);
  return finish_llama(config, sample, llama, kinds);
}

// Qwen3.5's text: the same two mixers, with projections apart, in front of one feed-forward
// network.
LlamaPlan plan_qwen3_5(ConfigReader& config) {
  LlamaLike llama = read_llama(config,
                               {.vocabulary = 248320,
                                .hidden = 4096,
                                .layers = 32,
                                .heads = 16,
                                .kv_heads = 4,
                                .head_dim = 256,
                                .max_sequence = 32768,
                                .tied = false},
                               12288);
  read_gated_attention(config, llama);
  DeltaPart delta = read_delta(config);
  delta.joined = false;
  llama.other_mixer = [delta](BlockBuilder& block, TensorRef x) {
    return add_delta_net(block, x, delta);
  };
  const std::vector<int> kinds = delta_layers(config, llama.sizes.layers);
  return {llama, kinds};
}

Graph build_qwen3_5_text(ConfigReader& config, const SampleShape& sample) {
  const LlamaPlan plan = plan_qwen3_5(config);
  return finish_llama(config, sample, plan.llama, plan.kinds);
}

Graph build_bamba(ConfigReader& config, const SampleShape& sample) {
  LlamaLike llama = read_llama(config,
                               {.vocabulary = 128000,
                                .hidden = 4096,
                                .layers = 32,
                                .heads = 32,
                                .kv_heads = 8,
                                .head_dim = {},
                                .max_sequence = 262144,
                                .tied = false},
                               14336);
  llama.attention.rotary_dims = rotary_dims_of(config, llama.sizes.head_dim, 0.5);
  llama.attention.rotary_joins_rest = true;
  llama.norms.before_mlp = "pre_ff_layernorm";
  llama.mlp.module = "feed_forward";
  llama.final_norm = "final_layernorm";
  scan_with(llama, read_mamba(config, llama.sizes.hidden));
  std::vector<int> kinds(static_cast<std::size_t>(llama.sizes.layers), kLinear);
  if (!config.is_empty_list("attn_layer_indices")) {
    for (const std::int64_t layer : config.whole_list(
             {"attn_layer_indices"}, {}, {.least = 0, .most = llama.sizes.layers - 1})) {
      kinds[static_cast<std::size_t>(layer)] = 0;
    }
  }
  return finish_llama(config, sample, llama, kinds);
}

// Granite 4: experts, where there are any, beside a feed-forward network of all tokens.
Graph build_granitemoehybrid(ConfigReader& config, const SampleShape& sample) {
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
  llama.attention.qkv_bias = llama.attention.out_bias = config.flag({"attention_bias"}, false);
  if (config.text({"position_embedding_type"}, "") != "rope") llama.attention.rotary_dims = 0;
  read_granite_factors(config, llama);
  const std::int64_t shared = config.whole({"shared_intermediate_size"}, 1024, kWideLimits);
  MlpPart own = shared_of(llama, "shared_mlp", shared);
  own.form = MlpForm::fused;
  own.both = "input_linear";
  own.down = "output_linear";
  own.act = "activation";
  if (config.whole({"num_local_experts"}, 8, {0, 1024}) > 0) {
    llama.mixture = read_granite_experts(config, llama);
    llama.shared = own;
    llama.shared_gate = false;
  } else {
    llama.mlp = own;
  }
  scan_with(llama, read_mamba(config, llama.sizes.hidden));
  return finish_llama(config, sample, llama,
                      mixers_of(config, llama.sizes.layers, "mamba", "attention"));
}

Graph build_lfm2(ConfigReader& config, const SampleShape& sample) {
  LlamaLike llama = read_llama(config,
                               {.vocabulary = 65536,
                                .hidden = 2560,
                                .layers = 32,
                                .heads = 32,
                                .kv_heads = 8,
                                .head_dim = {},
                                .max_sequence = 128000,
                                .tied = true},
                               12288);
  llama.attention.out = "out_proj";
  llama.attention.qk_norm = QkNorm::rms_per_head;
  llama.attention.q_norm = "q_layernorm";
  llama.attention.k_norm = "k_layernorm";
  llama.attention.shape.dropout = 0.0;
  llama.norms = {.before_attention = "operator_norm",
                 .behind_attention = "",
                 .before_mlp = "ffn_norm",
                 .behind_mlp = ""};
  llama.final_norm = "embedding_norm";
  llama.mlp.module = "feed_forward";
  llama.mlp.intermediate = lfm2_width(config);
  llama.mlp.gate = "w1";
  llama.mlp.up = "w3";
  llama.mlp.down = "w2";
  const std::int64_t taps = config.whole({"conv_L_cache"}, 3, {1, 63});
  if (taps % 2 == 0) config.reject("conv_L_cache", std::to_string(taps), "an odd number");
  const bool bias = config.flag({"conv_bias"}, false);
  llama.other_mixer = [taps, bias](BlockBuilder& block, TensorRef x) {
    return add_short_conv(block, x, taps, bias);
  };
  std::vector<int> kinds = mixers_of(config, llama.sizes.layers, "conv", "full_attention");
  if (!config.has("layer_types") && !config.is_empty_list("full_attn_idxs")) {
    std::vector<std::int64_t> all;
    for (std::int64_t i = 0; i < llama.sizes.layers; ++i) all.push_back(i);
    for (const std::int64_t layer :
         config.whole_list({"full_attn_idxs"}, all, {.least = 0, .most = llama.sizes.layers - 1})) {
      kinds[static_cast<std::size_t>(layer)] = 0;
    }
  }
  return finish_llama(config, sample, llama, kinds);
}

}  // namespace steelyard::model
