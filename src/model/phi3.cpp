// Phi-3 and Phi-4 (transformers: modeling_phi3.py): LLaMA's layer with queries, keys and values in
// one projection and gate and up in another.
#include "model/decoder_parts.h"
#include "model/family.h"

namespace steelyard::model {

namespace {

struct Phi3 {
  Sizes sizes;
  AttentionPart attention;
  MlpPart mlp;
  double residual_dropout = 0.0;
};

TensorRef phi3_attention(BlockBuilder& block, TensorRef x, const Phi3& phi3) {
  const std::int64_t queries = phi3.sizes.heads * phi3.sizes.head_dim;
  const std::int64_t keys = phi3.sizes.kv_heads * phi3.sizes.head_dim;
  const TensorRef fused = block.linear("self_attn.qkv_proj", x, queries + 2 * keys);
  const auto qkv =
      block.split("self_attn.split", fused, {{"q", queries}, {"k", keys}, {"v", keys}});
  // torch.cat([q_rot * cos + rotate_half(q_rot) * sin, q_pass]), also where q_pass is empty.
  return add_attention_core(block, block.heads("self_attn.q_heads", qkv[0], phi3.sizes.heads),
                            block.heads("self_attn.k_heads", qkv[1], phi3.sizes.kv_heads),
                            block.heads("self_attn.v_heads", qkv[2], phi3.sizes.kv_heads),
                            phi3.attention);
}

Block phi3_layer(const Graph& graph, const Phi3& phi3) {
  BlockBuilder block(graph, "model.layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, phi3.sizes.hidden});
  TensorRef h = block.rms_norm("input_layernorm", x);
  h = phi3_attention(block, h, phi3);
  h = block.dropout("resid_attn_dropout", h, phi3.residual_dropout);
  const TensorRef middle = block.add("residual_attention", x, h);
  h = block.rms_norm("post_attention_layernorm", middle);
  h = add_fused_mlp(block, h, phi3.mlp);
  h = block.dropout("resid_mlp_dropout", h, phi3.residual_dropout);
  return block.finish(block.add("residual_mlp", middle, h));
}

}  // namespace

Graph build_phi3(ConfigReader& config, const SampleShape& sample) {
  Phi3 phi3;
  phi3.sizes = read_sizes(config, {.vocabulary = 32064,
                                   .hidden = 3072,
                                   .layers = 32,
                                   .heads = 32,
                                   .kv_heads = {},
                                   .head_dim = {},
                                   .max_sequence = 4096,
                                   .tied = false});
  phi3.attention = attention_part(phi3.sizes);
  phi3.attention.rotary_dims = rotary_dims_of(config, phi3.sizes.head_dim, 1.0);
  phi3.attention.rotary_joins_rest = true;
  phi3.attention.shape.dropout = config.probability({"attention_dropout"}, 0.0);
  phi3.attention.shape.repeats_for_flash = true;
  phi3.attention.shape.window = config.whole({"sliding_window"}, 0, kWindowLimits);
  phi3.mlp.intermediate = config.whole({"intermediate_size"}, 8192, kWideLimits);
  phi3.mlp.act = "activation_fn";
  phi3.mlp.activation = config.activation({"hidden_act"}, "silu");
  phi3.residual_dropout = config.probability({"resid_pdrop"}, 0.0);

  Graph graph = start_graph(config, phi3.sizes, sample);
  add_embed(graph, {.name = "model.embed_tokens",
                    .rotary_dims = phi3.attention.rotary_dims,
                    .rotary_name = "model.rotary_emb"});
  graph.segments.push_back({phi3.sizes.layers, {phi3_layer(graph, phi3)}});
  add_head(graph, phi3.sizes,
           {.norm = HeadOptions::Norm::rms,
            .norm_name = "model.norm",
            .embedding_name = "model.embed_tokens"});
  return graph;
}

}  // namespace steelyard::model
