// DBRX (transformers 4.57: modeling_dbrx.py): LayerNorm without bias, one clamped projection for
// queries, keys and values, experts whose matrices lie one below the other.
#include <string>
#include <tuple>

#include "model/decoder_parts.h"
#include "model/family.h"

namespace steelyard::model {

namespace {

constexpr Limits kExpertLimits{1, 4096};

struct Dbrx {
  Sizes sizes;
  AttentionPart attention;
  MixturePart mixture;
  bool clips = false;
  bool jitters = false;  // the router's input, and the experts', times random factors near 1
  double residual_dropout = 0.0, embedding_dropout = 0.0;
};

Block dbrx_layer(const Graph& graph, const Dbrx& dbrx) {
  const Sizes& sizes = dbrx.sizes;
  const std::int64_t keys = sizes.kv_heads * sizes.head_dim;
  const std::string module = dbrx.attention.module;
  const LayerNormOptions norm{.weight = true, .bias = false};
  BlockBuilder block(graph, "transformer.blocks");
  const TensorRef x = block.input({graph.batch, graph.sequence, sizes.hidden});
  TensorRef h = block.layer_norm("norm_attn_norm.norm_1", x, norm);
  h = block.linear(module + ".Wqkv", h, sizes.hidden + 2 * keys);
  if (dbrx.clips) h = block.clamp(module + ".clamp", h);
  const auto qkv =
      block.split(module + ".split", h, {{"q", sizes.hidden}, {"k", keys}, {"v", keys}});
  const TensorRef q = block.heads(module + ".q_heads", qkv[0], sizes.heads);
  const TensorRef k = block.heads(module + ".k_heads", qkv[1], sizes.kv_heads);
  const TensorRef v = block.heads(module + ".v_heads", qkv[2], sizes.kv_heads);
  // DbrxAttention makes its tables itself, in the type of the values.
  AttentionPart attention = dbrx.attention;
  std::tie(attention.cos, attention.sin) =
      block.own_rotary_table(module + ".rotary_emb", v, {1, graph.sequence, sizes.head_dim});
  h = add_attention_core(block, q, k, v, attention);
  h = block.dropout("norm_attn_norm.dropout", h, dbrx.residual_dropout);
  const TensorRef middle = block.add("residual_attention", h, x);
  h = block.layer_norm("norm_attn_norm.norm_2", middle, norm);
  if (dbrx.jitters) h = block.jitter("ffn.router.jitter", h);
  h = add_mixture(block, h, dbrx.mixture);
  h = block.dropout("dropout", h, dbrx.residual_dropout);
  return block.finish(block.add("residual_mlp", middle, h));
}

void read_attention(ConfigReader& config, Dbrx& dbrx) {
  ConfigReader table = config.table("attn_config");
  dbrx.sizes.kv_heads = table.whole({"kv_n_heads"}, 1, kHeadLimits);
  dbrx.clips = table.has("clip_qkv");
  const double dropout = table.probability({"attn_pdrop"}, 0.0);
  config.adopt(table);
  check_kv_heads(config, dbrx.sizes, "attn_config.kv_n_heads");
  dbrx.attention = attention_part(dbrx.sizes);
  dbrx.attention.shape.dropout = dropout;
  dbrx.attention.module = "norm_attn_norm.attn";
  dbrx.attention.out = "out_proj";
}

void read_mixture(ConfigReader& config, Dbrx& dbrx) {
  ConfigReader table = config.table("ffn_config");
  MixturePart& part = dbrx.mixture;
  part.module = "ffn";
  part.router = "router.layer";
  MixtureShape& shape = part.shape;
  shape.experts = table.whole({"moe_num_experts"}, 4, kExpertLimits);
  shape.chosen = table.whole({"moe_top_k"}, 1, kExpertLimits);
  shape.intermediate = table.whole({"ffn_hidden_size"}, 3584, kWideLimits);
  shape.code = ExpertCode::chunked;
  shape.routing = table.is_null("moe_normalize_expert_weights") ? Routing::softmax
                                                                : Routing::softmax_normalised;
  dbrx.jitters = table.has("moe_jitter_eps");
  ConfigReader act = table.table("ffn_act_fn");
  part.activation = act.activation({"name"}, "silu");
  table.adopt(act);
  if (shape.chosen > shape.experts) {
    table.reject("moe_top_k", std::to_string(shape.chosen),
                 "at most the " + std::to_string(shape.experts) + " of moe_num_experts");
  }
  config.adopt(table);
  const Shape held = {shape.experts * shape.intermediate, dbrx.sizes.hidden};
  part.held = {
      {"ffn.experts.mlp.w1", held}, {"ffn.experts.mlp.v1", held}, {"ffn.experts.mlp.w2", held}};
}

}  // namespace

Graph build_dbrx(ConfigReader& config, const SampleShape& sample) {
  Dbrx dbrx;
  Sizes& sizes = dbrx.sizes;
  sizes.vocabulary = config.whole({"vocab_size"}, 32000, kVocabularyLimits);
  sizes.hidden = config.whole({"d_model", "hidden_size"}, 2048, kHiddenLimits);
  sizes.layers = config.whole({"n_layers", "num_hidden_layers"}, 24, kLayerLimits);
  sizes.heads = config.whole({"n_heads", "num_attention_heads"}, 16, kHeadLimits);
  sizes.head_dim = divided_heads(config, sizes.hidden, sizes.heads, "d_model", "n_heads");
  sizes.max_sequence =
      config.whole({"max_seq_len", "max_position_embeddings"}, 2048, kPositionLimits);
  dbrx.residual_dropout = config.probability({"resid_pdrop"}, 0.0);
  dbrx.embedding_dropout = config.probability({"emb_pdrop"}, 0.0);
  read_attention(config, dbrx);
  read_mixture(config, dbrx);
  Graph graph = start_graph(config, sizes, sample);
  add_embed(graph, {.name = "transformer.wte", .dropout = dbrx.embedding_dropout});
  graph.segments.push_back({sizes.layers, {dbrx_layer(graph, dbrx)}});
  add_head(graph, sizes,
           {.norm = HeadOptions::Norm::layer_without_bias,
            .norm_name = "transformer.norm_f",
            .embedding_name = "transformer.wte"});
  return graph;
}

}  // namespace steelyard::model
