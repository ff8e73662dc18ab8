// GPT-NeoX and Pythia (transformers: modeling_gpt_neox.py): one projection that holds query, key
// and value head by head, a quarter of each head turns, attention and feed-forward beside each
// other.
#include "model/decoder_parts.h"
#include "model/family.h"

namespace steelyard::model {

namespace {

struct Neox {
  Sizes sizes;
  AttentionPart attention;
  MlpPart mlp;
  bool attention_bias = true;
  bool parallel = true;
  double hidden_dropout = 0.0;
};

Neox read_neox(ConfigReader& config) {
  Neox neox;
  neox.sizes = read_sizes(config, {.vocabulary = 50432,
                                   .hidden = 6144,
                                   .layers = 44,
                                   .heads = 64,
                                   .kv_heads = {},
                                   .head_dim = {},
                                   .max_sequence = 2048,
                                   .tied = false});
  neox.sizes.kv_heads = neox.sizes.heads;
  neox.attention = attention_part(neox.sizes);
  neox.attention.module = "attention";
  neox.attention.out = "dense";
  neox.attention_bias = config.flag({"attention_bias"}, true);
  neox.attention.out_bias = neox.attention_bias;
  neox.attention.rotary_dims = rotary_dims_of(config, neox.sizes.head_dim, 0.25);
  neox.attention.shape.dropout = config.probability({"attention_dropout"}, 0.0);
  neox.mlp = {.intermediate = config.whole({"intermediate_size"}, 24576, kWideLimits),
              .activation = config.activation({"hidden_act"}, "gelu"),
              .bias = true,
              .up = "dense_h_to_4h",
              .down = "dense_4h_to_h",
              .act = "act"};
  neox.parallel = config.flag({"use_parallel_residual"}, true);
  neox.hidden_dropout = config.probability({"hidden_dropout"}, 0.0);
  return neox;
}

TensorRef neox_attention(BlockBuilder& block, TensorRef x, const Neox& neox) {
  const Sizes& sizes = neox.sizes;
  TensorRef fused =
      block.linear("attention.query_key_value", x, 3 * sizes.hidden, {.bias = neox.attention_bias});
  fused = block.heads("attention.heads", fused, sizes.heads);  // [B,n,S,3d]
  const auto qkv =
      block.split("attention.split", fused,
                  {{"q", sizes.head_dim}, {"k", sizes.head_dim}, {"v", sizes.head_dim}});
  const TensorRef out = add_attention_core(block, qkv[0], qkv[1], qkv[2], neox.attention);
  return block.dropout("post_attention_dropout", out, neox.hidden_dropout);
}

Block neox_layer(const Graph& graph, const Neox& neox) {
  BlockBuilder block(graph, "gpt_neox.layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, neox.sizes.hidden});
  TensorRef h = block.layer_norm("input_layernorm", x);
  const TensorRef mixed = neox_attention(block, h, neox);
  const TensorRef middle = neox.parallel ? x : block.add("residual_attention", mixed, x);
  h = block.layer_norm("post_attention_layernorm", middle);
  h = add_plain_mlp(block, h, neox.mlp);
  h = block.dropout("post_mlp_dropout", h, neox.hidden_dropout);
  if (!neox.parallel) return block.finish(block.add("residual_mlp", h, middle));
  h = block.add("residual_attention", h, mixed);
  return block.finish(block.add("residual_mlp", h, x));
}

}  // namespace

Graph build_gpt_neox(ConfigReader& config, const SampleShape& sample) {
  const Neox neox = read_neox(config);
  Graph graph = start_graph(config, neox.sizes, sample);
  add_embed(graph, {.name = "gpt_neox.embed_in",
                    .rotary_dims = neox.attention.rotary_dims,
                    .rotary_name = "gpt_neox.rotary_emb",
                    .dropout = neox.hidden_dropout});
  graph.segments.push_back({neox.sizes.layers, {neox_layer(graph, neox)}});
  add_head(graph, neox.sizes,
           {.norm = HeadOptions::Norm::layer,
            .norm_name = "gpt_neox.final_layer_norm",
            .embedding_name = "gpt_neox.embed_in",
            .head_name = "embed_out",
            .widens_logits = false});
  return graph;
}

}  // namespace steelyard::model
