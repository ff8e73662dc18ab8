// Phi (transformers: modeling_phi.py): attention and feed-forward beside each other behind one
// LayerNorm, half of each head turns, everything has a bias, even the head.
#include "model/decoder_parts.h"
#include "model/family.h"

namespace steelyard::model {

namespace {

struct Phi {
  Sizes sizes;
  AttentionPart attention;
  MlpPart mlp;
  double residual_dropout = 0.0, embedding_dropout = 0.0;
};

Phi read_phi(ConfigReader& config) {
  Phi phi;
  phi.sizes = read_sizes(config, {.vocabulary = 51200,
                                  .hidden = 2048,
                                  .layers = 24,
                                  .heads = 32,
                                  .kv_heads = {},
                                  .head_dim = {},
                                  .max_sequence = 2048,
                                  .tied = false});
  phi.attention = attention_part(phi.sizes);
  phi.attention.shape.dropout = config.probability({"attention_dropout"}, 0.0);
  phi.attention.rotary_dims = rotary_dims_of(config, phi.sizes.head_dim, 0.5);
  phi.attention.qkv_bias = phi.attention.out_bias = true;
  phi.attention.out = "dense";
  phi.attention.q_norm = "q_layernorm";
  phi.attention.k_norm = "k_layernorm";
  if (config.flag({"qk_layernorm"}, false)) phi.attention.qk_norm = QkNorm::layer_per_head;
  phi.mlp = {.intermediate = config.whole({"intermediate_size"}, 8192, kWideLimits),
             .activation = config.activation({"hidden_act"}, "gelu_new"),
             .bias = true,
             .up = "fc1",
             .down = "fc2",
             .act = "activation_fn"};
  phi.residual_dropout = config.probability({"resid_pdrop"}, 0.0);
  phi.embedding_dropout = config.probability({"embd_pdrop"}, 0.0);
  return phi;
}

Block phi_layer(const Graph& graph, const Phi& phi) {
  BlockBuilder block(graph, "model.layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, phi.sizes.hidden});
  const TensorRef normed = block.layer_norm("input_layernorm", x);
  TensorRef mixed = add_attention(block, normed, phi.attention);
  mixed = block.dropout("resid_dropout_attention", mixed, phi.residual_dropout);
  TensorRef fed = add_plain_mlp(block, normed, phi.mlp);
  fed = block.dropout("resid_dropout_mlp", fed, phi.residual_dropout);
  const TensorRef both = block.add("residual_attention", mixed, fed);
  return block.finish(block.add("residual_mlp", both, x));
}

}  // namespace

Graph build_phi(ConfigReader& config, const SampleShape& sample) {
  const Phi phi = read_phi(config);
  Graph graph = start_graph(config, phi.sizes, sample);
  add_embed(graph, {.name = "model.embed_tokens",
                    .rotary_dims = phi.attention.rotary_dims,
                    .rotary_name = "model.rotary_emb",
                    .dropout = phi.embedding_dropout});
  graph.segments.push_back({phi.sizes.layers, {phi_layer(graph, phi)}});
  add_head(graph, phi.sizes,
           {.norm = HeadOptions::Norm::layer,
            .norm_name = "model.final_layernorm",
            .embedding_name = "model.embed_tokens",
            .bias = true});
  return graph;
}

}  // namespace steelyard::model
