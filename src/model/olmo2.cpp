// OLMo 2 (transformers: modeling_olmo2.py): the norms stand behind each half of a layer, and
// queries and keys are normed over all heads at once.
#include "model/decoder_parts.h"
#include "model/family.h"

namespace steelyard::model {

namespace {

struct Olmo2 {
  Sizes sizes;
  AttentionPart attention;
  MlpPart mlp;
};

Block olmo2_layer(const Graph& graph, const Olmo2& olmo) {
  BlockBuilder block(graph, "model.layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, olmo.sizes.hidden});
  TensorRef h = add_attention(block, x, olmo.attention);
  h = block.rms_norm("post_attention_layernorm", h);
  const TensorRef middle = block.add("residual_attention", x, h);
  h = add_gated_mlp(block, middle, olmo.mlp);
  h = block.rms_norm("post_feedforward_layernorm", h);
  return block.finish(block.add("residual_mlp", middle, h));
}

}  // namespace

Graph build_olmo2(ConfigReader& config, const SampleShape& sample) {
  Olmo2 olmo;
  olmo.sizes = read_sizes(config, {.vocabulary = 50304,
                                   .hidden = 4096,
                                   .layers = 32,
                                   .heads = 32,
                                   .kv_heads = {},
                                   .head_dim = {},
                                   .max_sequence = 2048,
                                   .tied = false});
  olmo.attention = attention_part(olmo.sizes);
  olmo.attention.qkv_bias = olmo.attention.out_bias = config.flag({"attention_bias"}, false);
  olmo.attention.qk_norm = QkNorm::rms_whole;
  olmo.attention.shape.dropout = config.probability({"attention_dropout"}, 0.0);
  olmo.mlp.intermediate = config.whole({"intermediate_size"}, 11008, kWideLimits);
  olmo.mlp.activation = config.activation({"hidden_act"}, "silu");

  Graph graph = start_graph(config, olmo.sizes, sample);
  add_embed(graph, {.name = "model.embed_tokens",
                    .rotary_dims = olmo.sizes.head_dim,
                    .rotary_name = "model.rotary_emb"});
  graph.segments.push_back({olmo.sizes.layers, {olmo2_layer(graph, olmo)}});
  add_head(graph, olmo.sizes,
           {.norm = HeadOptions::Norm::rms,
            .norm_name = "model.norm",
            .embedding_name = "model.embed_tokens"});
  // Olmo2RMSNorm: (weight * hidden).to(input_dtype); apply_rotary_pos_emb: q_embed.to(q_type).
  for (Segment& segment : graph.segments) {
    for (Block& block : segment.blocks) {
      for (Operator& op : block.operators) op.scales_wide = op.wide_tables = true;
    }
  }
  return graph;
}

}  // namespace steelyard::model
