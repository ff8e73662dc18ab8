// StarCoder 2 (transformers: modeling_starcoder2.py): LLaMA's attention with biases, LayerNorm, and
// a plain feed-forward network.
#include "model/decoder_parts.h"
#include "model/family.h"

namespace steelyard::model {

namespace {

struct Starcoder2 {
  Sizes sizes;
  AttentionPart attention;
  MlpPart mlp;
  double residual_dropout = 0.0, embedding_dropout = 0.0;
};

Starcoder2 read_starcoder2(ConfigReader& config) {
  Starcoder2 coder;
  coder.sizes = read_sizes(config, {.vocabulary = 49152,
                                    .hidden = 3072,
                                    .layers = 30,
                                    .heads = 24,
                                    .kv_heads = 2,
                                    .head_dim = {},
                                    .max_sequence = 4096,
                                    .tied = true});
  const bool bias = config.flag({"use_bias"}, true);
  coder.attention = attention_part(coder.sizes);
  coder.attention.qkv_bias = coder.attention.out_bias = bias;
  coder.attention.shape.dropout = config.probability({"attention_dropout"}, 0.0);
  coder.attention.shape.repeats_for_flash = true;
  coder.attention.shape.window = config.whole({"sliding_window"}, 0, kWindowLimits);
  coder.mlp.intermediate = config.whole({"intermediate_size"}, 12288, kWideLimits);
  coder.mlp.activation = config.activation({"hidden_act"}, "gelu_pytorch_tanh");
  coder.mlp.bias = bias;
  coder.mlp.up = "c_fc";
  coder.mlp.down = "c_proj";
  coder.mlp.act = "act";
  coder.residual_dropout = config.probability({"residual_dropout"}, 0.0);
  coder.embedding_dropout = config.probability({"embedding_dropout"}, 0.0);
  return coder;
}

Block starcoder2_layer(const Graph& graph, const Starcoder2& coder) {
  BlockBuilder block(graph, "model.layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, coder.sizes.hidden});
  TensorRef h = block.layer_norm("input_layernorm", x);
  h = add_attention(block, h, coder.attention);
  h = block.dropout("residual_dropout_attention", h, coder.residual_dropout);
  const TensorRef middle = block.add("residual_attention", x, h);
  h = block.layer_norm("post_attention_layernorm", middle);
  h = add_plain_mlp(block, h, coder.mlp);
  h = block.dropout("residual_dropout_mlp", h, coder.residual_dropout);
  return block.finish(block.add("residual_mlp", middle, h));
}

}  // namespace

Graph build_starcoder2(ConfigReader& config, const SampleShape& sample) {
  const Starcoder2 coder = read_starcoder2(config);
  Graph graph = start_graph(config, coder.sizes, sample);
  add_embed(graph, {.name = "model.embed_tokens",
                    .rotary_dims = coder.sizes.head_dim,
                    .rotary_name = "model.rotary_emb",
                    .dropout = coder.embedding_dropout});
  graph.segments.push_back({coder.sizes.layers, {starcoder2_layer(graph, coder)}});
  add_head(graph, coder.sizes,
           {.norm = HeadOptions::Norm::layer,
            .norm_name = "model.norm",
            .embedding_name = "model.embed_tokens"});
  return graph;
}

}  // namespace steelyard::model
