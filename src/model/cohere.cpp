// Command R (transformers 4.57: modeling_cohere.py, modeling_cohere2.py): attention and
// feed-forward network side by side behind one LayerNorm that is written out in fp32, neighbours
// turning, scaled logits of a tied head. Cohere 2 turns in the layers with a window alone.
#include "model/decoder_parts.h"
#include "model/family.h"

namespace steelyard::model {

namespace {

constexpr double kLargestScale = 1e6;

struct Cohere {
  Sizes sizes;
  AttentionPart attention;
  MlpPart mlp;
};

Block cohere_layer(const Graph& graph, const Cohere& cohere, const AttentionPart& attention) {
  BlockBuilder block(graph, "model.layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, cohere.sizes.hidden});
  const TensorRef h = block.written_layer_norm("input_layernorm", x);
  const TensorRef mixed = add_attention(block, h, attention);
  const TensorRef wide = add_gated_mlp(block, h, cohere.mlp);
  return block.finish(block.add("residual_mlp", block.add("residual_attention", x, mixed), wide));
}

Cohere read_cohere(ConfigReader& config) {
  Cohere cohere;
  cohere.sizes = read_sizes(config, {.vocabulary = 256000,
                                     .hidden = 8192,
                                     .layers = 40,
                                     .heads = 64,
                                     .kv_heads = {},
                                     .head_dim = {},
                                     .max_sequence = 8192,
                                     .tied = true});
  cohere.attention = attention_part(cohere.sizes);
  cohere.attention.qkv_bias = cohere.attention.out_bias = config.flag({"attention_bias"}, false);
  cohere.attention.shape.dropout = config.probability({"attention_dropout"}, 0.0);
  cohere.attention.turns_pairs = true;
  cohere.mlp.intermediate = config.whole({"intermediate_size"}, 22528, kWideLimits);
  cohere.mlp.activation = config.activation({"hidden_act"}, "silu");
  return cohere;
}

Graph cohere_start(ConfigReader& config, const SampleShape& sample, const Cohere& cohere) {
  Graph graph = start_graph(config, cohere.sizes, sample);
  add_embed(graph, {.name = "model.embed_tokens",
                    .rotary_dims = cohere.sizes.head_dim,
                    .rotary_name = "model.rotary_emb"});
  return graph;
}

void cohere_head(Graph& graph, ConfigReader& config, const Cohere& cohere) {
  add_head(graph, cohere.sizes,
           {.norm = HeadOptions::Norm::layer_written_out,
            .norm_name = "model.norm",
            .embedding_name = "model.embed_tokens",
            .scale = config.real({"logit_scale"}, 0.0625, -kLargestScale, kLargestScale)});
}

}  // namespace

Graph build_cohere(ConfigReader& config, const SampleShape& sample) {
  Cohere cohere = read_cohere(config);
  if (config.flag({"use_qk_norm"}, false)) cohere.attention.qk_norm = QkNorm::layer_written_out;
  Graph graph = cohere_start(config, sample, cohere);
  graph.segments.push_back({cohere.sizes.layers, {cohere_layer(graph, cohere, cohere.attention)}});
  cohere_head(graph, config, cohere);
  return graph;
}

Graph build_cohere2(ConfigReader& config, const SampleShape& sample) {
  const Cohere cohere = read_cohere(config);
  const std::int64_t window = config.whole({"sliding_window"}, 4096, kWindowLimits);
  const std::int64_t pattern = config.whole({"sliding_window_pattern"}, 4, kLayerLimits);
  const std::vector<int> kinds = window_kinds(
      config, cohere.sizes.layers, [&](std::int64_t layer) { return (layer + 1) % pattern != 0; });
  Graph graph = cohere_start(config, sample, cohere);
  add_layers(graph, kinds, [&](int kind) {
    AttentionPart attention = cohere.attention;
    attention.shape.window = kind == 1 ? window : 0;
    if (kind == 0) attention.rotary_dims = 0;
    return cohere_layer(graph, cohere, attention);
  });
  cohere_head(graph, config, cohere);
  return graph;
}

}  // namespace steelyard::model
