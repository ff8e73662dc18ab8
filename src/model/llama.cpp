// The family of LLaMA (transformers: modeling_llama.py, modeling_mistral.py, modeling_qwen2.py,
// modeling_qwen3.py, modeling_granite.py): pre-norm RMSNorm, separate projections, rotary
// positions, grouped-query attention, gated feed-forward. The differences are a bias here and a
// norm there.
#include <algorithm>
#include <limits>
#include <string>

#include "model/llama_parts.h"

namespace steelyard::model {

namespace {

constexpr double kAnyReal = std::numeric_limits<double>::max();

// Qwen2MoeSparseMoeBlock.forward: the experts, then one that all tokens pass, behind a gate of each
// token.
TensorRef add_experts(BlockBuilder& block, TensorRef x, const LlamaLike& llama) {
  const MixturePart& mixture = *llama.mixture;
  const TensorRef routed = add_mixture(block, x, mixture);
  if (!llama.shared) return routed;
  const TensorRef own = add_mlp(block, x, *llama.shared);
  if (!llama.shared_gate) return block.add(mixture.module + ".add_shared", routed, own);
  const std::string gate_name = llama.shared->module + "_gate";
  const TensorRef gate = block.linear(gate_name, x, 1);
  const TensorRef h = block.token_gate(gate_name + ".sigmoid", gate, own, ActivationKind::sigmoid);
  return block.add(mixture.module + ".add_shared", routed, h);
}

TensorRef normed(BlockBuilder& block, const std::string& name, TensorRef x, LayerNorm kind) {
  if (name.empty()) return x;
  switch (kind) {
    case LayerNorm::rms: return block.rms_norm(name, x);
    case LayerNorm::rms_offset: return block.rms_norm(name, x, true);
    case LayerNorm::layer: return block.layer_norm(name, x);
    case LayerNorm::plain_wide:
      x = block.layer_norm(name, block.widen(name + ".widen", x), {.weight = false, .bias = false});
      return block.narrow(name + ".narrow", x);
  }
  return x;
}

HeadOptions::Norm head_norm(LayerNorm kind) {
  switch (kind) {
    case LayerNorm::rms: return HeadOptions::Norm::rms;
    case LayerNorm::rms_offset: return HeadOptions::Norm::rms_unit_offset;
    case LayerNorm::layer: return HeadOptions::Norm::layer;
    case LayerNorm::plain_wide: return HeadOptions::Norm::layer_plain_wide;
  }
  return HeadOptions::Norm::rms;
}

constexpr TensorRef kLocalCos{true, 3}, kLocalSin{true, 4};

TensorRef mixed(BlockBuilder& block, TensorRef x, const LlamaLike& llama, int kind) {
  if ((kind & kLinear) != 0) return llama.other_mixer(block, x);
  AttentionPart attention = llama.attention;
  const bool windowed = (kind & kWindowed) != 0;
  attention.shape.window = windowed ? llama.window : 0;
  if ((kind & kUnturned) != 0) attention.rotary_dims = 0;
  if (windowed && llama.window_tables) {
    attention.cos = kLocalCos;
    attention.sin = kLocalSin;
  }
  return add_attention(block, x, attention);
}

// Olmo2RMSNorm: (weight * hidden).to(input_dtype); apply_rotary_pos_emb: q_embed.to(q_type).
void widen(Graph& graph) {
  for (Segment& segment : graph.segments) {
    for (Block& block : segment.blocks) {
      for (Operator& op : block.operators) op.scales_wide = op.wide_tables = true;
    }
  }
}

}  // namespace

Block llama_layer(const Graph& graph, const LlamaLike& llama, int kind) {
  const LayerNorm norm = llama.norm;
  const std::optional<double>& scale = llama.residual_multiplier;
  BlockBuilder block(graph, llama.root + "." + llama.layers);
  const TensorRef x = block.input({graph.batch, graph.sequence, llama.sizes.hidden});
  TensorRef h = normed(block, llama.norms.before_attention, x, norm);
  h = mixed(block, h, llama, kind);
  h = block.dropout(llama.attention.module + ".dropout", h, llama.residual_dropout);
  h = normed(block, llama.norms.behind_attention, h, norm);
  if (scale) h = block.scale("residual_multiplier_attention", h, *scale);
  const TensorRef middle = block.add("residual_attention", x, h);
  h = normed(block, llama.norms.before_mlp, middle, norm);
  h = llama.mixture && (kind & kDense) == 0 ? add_experts(block, h, llama)
                                            : add_mlp(block, h, llama.mlp);
  h = block.dropout(llama.mlp.module + ".dropout", h, llama.residual_dropout);
  h = normed(block, llama.norms.behind_mlp, h, norm);
  if (scale) h = block.scale("residual_multiplier_mlp", h, *scale);
  return block.finish(block.add("residual_mlp", middle, h));
}

Graph finish_llama(ConfigReader& config, const SampleShape& sample, const LlamaLike& llama,
                   const std::vector<int>& kinds) {
  Graph graph = start_graph(config, llama.sizes, sample);
  const std::int64_t turning = llama.attention.rotary_dims;
  add_embed(graph, {.name = llama.embedding,
                    .scale = llama.embedding_multiplier,
                    .rotary_dims = turning,
                    .rotary_name = "model.rotary_emb"});
  graph.segments.back().blocks.back().operators.back().wide_tables = llama.wide_tables;
  if (llama.window_tables) {
    add_local_tables(graph, "model.rotary_embs.sliding_attention", turning, kLocalCos, kLocalSin);
  }
  add_layers(graph, kinds, [&](int kind) { return llama_layer(graph, llama, kind); });
  add_head(graph, llama.sizes,
           {.norm = head_norm(llama.norm),
            .norm_name = llama.root + "." + llama.final_norm,
            .embedding_name = llama.embedding,
            .head_name = llama.head,
            .bias = llama.head_bias,
            .scale = llama.logits_multiplier,
            .narrows = llama.norm == LayerNorm::plain_wide});
  if (llama.wide) widen(graph);
  return graph;
}

LlamaLike read_llama(ConfigReader& config, const SizeDefaults& defaults,
                     std::int64_t default_intermediate) {
  LlamaLike llama = read_llama_sizes(config, defaults, default_intermediate);
  llama.mlp.activation = config.activation({"hidden_act"}, "silu");
  return llama;
}

LlamaLike read_llama_sizes(ConfigReader& config, const SizeDefaults& defaults,
                           std::int64_t default_intermediate) {
  LlamaLike llama;
  llama.sizes = read_sizes(config, defaults);
  llama.attention = attention_part(llama.sizes);
  llama.attention.shape.dropout = config.probability({"attention_dropout"}, 0.0);
  llama.mlp.intermediate = config.whole({"intermediate_size"}, default_intermediate, kWideLimits);
  return llama;
}

namespace {

std::vector<int> all_of(int kind, std::int64_t layers) {
  return std::vector<int>(static_cast<std::size_t>(layers), kind);
}

}  // namespace

std::vector<int> qwen_windows(ConfigReader& config, LlamaLike& llama) {
  // 0 is how files of transformers 5 say that there is none.
  llama.window = config.whole({"sliding_window"}, 4096, {.least = 0, .most = kWindowLimits.most});
  const bool used = config.flag({"use_sliding_window"}, false) && llama.window > 0;
  const std::int64_t first =
      config.whole({"max_window_layers"}, 28, {.least = 0, .most = kLayerLimits.most});
  return window_kinds(config, llama.sizes.layers,
                      [&](std::int64_t layer) { return used && layer >= first; });
}

LlamaPlan plan_llama(ConfigReader& config) {
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
  llama.mlp.bias = config.flag({"mlp_bias"}, false);
  return {llama, all_of(0, llama.sizes.layers)};
}

Graph build_llama(ConfigReader& config, const SampleShape& sample) {
  const LlamaPlan plan = plan_llama(config);
  return finish_llama(config, sample, plan.llama, plan.kinds);
}

LlamaPlan plan_mistral(ConfigReader& config) {
  LlamaLike llama = read_llama(config,
                               {.vocabulary = 32000,
                                .hidden = 4096,
                                .layers = 32,
                                .heads = 32,
                                .kv_heads = 8,
                                .head_dim = {},
                                .max_sequence = 131072,
                                .tied = false},
                               14336);
  llama.attention.shape.repeats_for_flash = true;
  // Absent takes the class's 4096, null (from v0.2 on) means none.
  const bool windowed = !config.is_null("sliding_window");
  llama.window = config.whole({"sliding_window"}, 4096, kWindowLimits);
  return {llama, all_of(windowed ? 1 : 0, llama.sizes.layers)};
}

Graph build_mistral(ConfigReader& config, const SampleShape& sample) {
  const LlamaPlan plan = plan_mistral(config);
  return finish_llama(config, sample, plan.llama, plan.kinds);
}

LlamaPlan plan_qwen2(ConfigReader& config) {
  LlamaLike llama = read_llama(config,
                               {.vocabulary = 151936,
                                .hidden = 4096,
                                .layers = 32,
                                .heads = 32,
                                .kv_heads = 32,
                                .head_dim = {},
                                .max_sequence = 32768,
                                .tied = false},
                               22016);
  llama.attention.qkv_bias = true;
  llama.attention.shape.repeats_for_flash = true;
  const std::vector<int> kinds = qwen_windows(config, llama);
  return {llama, kinds};
}

Graph build_qwen2(ConfigReader& config, const SampleShape& sample) {
  const LlamaPlan plan = plan_qwen2(config);
  return finish_llama(config, sample, plan.llama, plan.kinds);
}

LlamaPlan plan_qwen3(ConfigReader& config) {
  LlamaLike llama = read_llama(config,
                               {.vocabulary = 151936,
                                .hidden = 4096,
                                .layers = 32,
                                .heads = 32,
                                .kv_heads = 32,
                                .head_dim = 128,
                                .max_sequence = 32768,
                                .tied = false},
                               22016);
  const bool bias = config.flag({"attention_bias"}, false);
  llama.attention.qkv_bias = bias;
  llama.attention.out_bias = bias;
  llama.attention.qk_norm = QkNorm::rms_per_head;
  const std::vector<int> kinds = qwen_windows(config, llama);
  return {llama, kinds};
}

Graph build_qwen3(ConfigReader& config, const SampleShape& sample) {
  const LlamaPlan plan = plan_qwen3(config);
  return finish_llama(config, sample, plan.llama, plan.kinds);
}

static LlamaPlan plan_granite(ConfigReader& config) {
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
  llama.mlp.bias = config.flag({"mlp_bias"}, false);
  llama.embedding_multiplier = config.real({"embedding_multiplier"}, 1.0, -kAnyReal, kAnyReal);
  llama.residual_multiplier = config.real({"residual_multiplier"}, 1.0, -kAnyReal, kAnyReal);
  constexpr double kSmallestDivisor = 1e-12;
  llama.logits_multiplier = 1.0 / config.real({"logits_scaling"}, 1.0, kSmallestDivisor, kAnyReal);
  return {llama, all_of(0, llama.sizes.layers)};
}

Graph build_granite(ConfigReader& config, const SampleShape& sample) {
  const LlamaPlan plan = plan_granite(config);
  return finish_llama(config, sample, plan.llama, plan.kinds);
}

TextStack text_stack_of(LlamaPlan plan, const TextNames& names) {
  plan.llama.root = names.root;
  TextStack stack;
  stack.sizes = plan.llama.sizes;
  stack.names = names;
  stack.embedding_scale = plan.llama.embedding_multiplier;
  stack.rotary_dims = plan.llama.attention.rotary_dims;
  stack.head = {.norm = head_norm(plan.llama.norm),
                .norm_name = names.root + ".norm",
                .embedding_name = names.root + ".embed_tokens",
                .head_name = names.head,
                .scale = plan.llama.logits_multiplier};
  stack.kinds = plan.kinds;
  stack.layer = [llama = plan.llama](const Graph& graph, int kind) {
    return llama_layer(graph, llama, kind);
  };
  return stack;
}

}  // namespace steelyard::model
