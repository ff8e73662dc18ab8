// StableLM (transformers: modeling_stablelm.py): LLaMA's layer with LayerNorm and a quarter of each
// head turning; StableLM 2 12B norms queries and keys head by head and sets both halves side by
// side.
#include "model/decoder_parts.h"
#include "model/family.h"

namespace steelyard::model {

namespace {

struct Stablelm {
  Sizes sizes;
  AttentionPart attention;
  MlpPart mlp;
  bool parallel = false;
  double hidden_dropout = 0.0;
};

Stablelm read_stablelm(ConfigReader& config) {
  Stablelm stable;
  stable.sizes = read_sizes(config, {.vocabulary = 50304,
                                     .hidden = 2560,
                                     .layers = 32,
                                     .heads = 32,
                                     .kv_heads = 32,
                                     .head_dim = {},
                                     .max_sequence = 4096,
                                     .tied = false});
  stable.attention = attention_part(stable.sizes);
  stable.attention.qkv_bias = config.flag({"use_qkv_bias"}, false);
  stable.attention.rotary_dims = rotary_dims_of(config, stable.sizes.head_dim, 0.25);
  stable.attention.shape.dropout = config.probability({"attention_dropout"}, 0.0);
  stable.attention.q_norm = "q_layernorm";
  stable.attention.k_norm = "k_layernorm";
  if (config.flag({"qk_layernorm"}, false)) stable.attention.qk_norm = QkNorm::layer_each_head;
  stable.mlp.intermediate = config.whole({"intermediate_size"}, 6912, kWideLimits);
  stable.mlp.activation = config.activation({"hidden_act"}, "silu");
  stable.parallel = config.flag({"use_parallel_residual"}, false);
  stable.hidden_dropout = config.probability({"hidden_dropout"}, 0.0);
  return stable;
}

Block stablelm_layer(const Graph& graph, const Stablelm& stable) {
  BlockBuilder block(graph, "model.layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, stable.sizes.hidden});
  const TensorRef normed = block.layer_norm("input_layernorm", x);
  const TensorRef mixed = add_attention(block, normed, stable.attention);
  TensorRef middle = block.add("residual_attention", x, mixed);
  TensorRef h = normed;
  if (!stable.parallel) h = block.layer_norm("post_attention_layernorm", middle);
  h = add_gated_mlp(block, h, stable.mlp);
  h = block.dropout("dropout", h, stable.hidden_dropout);
  return block.finish(block.add("residual_mlp", middle, h));
}

}  // namespace

Graph build_stablelm(ConfigReader& config, const SampleShape& sample) {
  const Stablelm stable = read_stablelm(config);
  Graph graph = start_graph(config, stable.sizes, sample);
  add_embed(graph, {.name = "model.embed_tokens",
                    .rotary_dims = stable.attention.rotary_dims,
                    .rotary_name = "model.rotary_emb"});
  graph.segments.push_back({stable.sizes.layers, {stablelm_layer(graph, stable)}});
  add_head(graph, stable.sizes,
           {.norm = HeadOptions::Norm::layer,
            .norm_name = "model.norm",
            .embedding_name = "model.embed_tokens",
            .widens_logits = false});
  return graph;
}

}  // namespace steelyard::model
