// OPT (transformers: modeling_opt.py): learned positions whose table has two rows more than
// positions, ReLU, biases everywhere. OPT-350m alone norms behind each half and embeds in fewer
// dimensions.
#include "model/decoder_parts.h"
#include "model/family.h"

namespace steelyard::model {

namespace {

constexpr std::int64_t kPositionOffset = 2;  // OPTLearnedPositionalEmbedding.offset

struct Opt {
  Sizes sizes;
  AttentionPart attention;
  std::int64_t feed_forward = 0;
  std::int64_t embedding_width = 0;
  ActivationKind activation = ActivationKind::relu;
  bool bias = true, norm_before = true, final_norm = true;
  LayerNormOptions norm;
  double dropout = 0.0;
};

Opt read_opt(ConfigReader& config) {
  Opt opt;
  opt.sizes = read_sizes(config, {.vocabulary = 50272,
                                  .hidden = 768,
                                  .layers = 12,
                                  .heads = 12,
                                  .kv_heads = {},
                                  .head_dim = {},
                                  .max_sequence = 2048,
                                  .tied = true});
  opt.sizes.kv_heads = opt.sizes.heads;
  opt.bias = config.flag({"enable_bias"}, true);
  opt.attention = attention_part(opt.sizes);
  opt.attention.out = "out_proj";
  opt.attention.rotary_dims = 0;
  opt.attention.qkv_bias = opt.attention.out_bias = opt.bias;
  opt.attention.shape.dropout = config.probability({"attention_dropout"}, 0.0);
  opt.feed_forward = config.whole({"ffn_dim"}, 3072, kWideLimits);
  opt.embedding_width = config.whole({"word_embed_proj_dim"}, opt.sizes.hidden, kHiddenLimits);
  opt.activation = config.activation({"activation_function"}, "relu");
  opt.norm_before = config.flag({"do_layer_norm_before"}, true);
  opt.final_norm = opt.norm_before && !config.flag({"_remove_final_layer_norm"}, false);
  const bool affine = config.flag({"layer_norm_elementwise_affine"}, true);
  opt.norm = {.weight = affine, .bias = affine};
  opt.dropout = config.probability({"dropout"}, 0.1);
  return opt;
}

Block opt_layer(const Graph& graph, const Opt& opt) {
  BlockBuilder block(graph, "model.decoder.layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, opt.sizes.hidden});
  TensorRef h = x;
  if (opt.norm_before) h = block.layer_norm("self_attn_layer_norm", h, opt.norm);
  h = add_attention(block, h, opt.attention);
  h = block.dropout("dropout_attention", h, opt.dropout);
  TensorRef middle = block.add("residual_attention", x, h);
  if (!opt.norm_before) middle = block.layer_norm("self_attn_layer_norm", middle, opt.norm);
  h = middle;
  if (opt.norm_before) h = block.layer_norm("final_layer_norm", h, opt.norm);
  h = block.linear("fc1", h, opt.feed_forward, {.bias = opt.bias});
  h = block.activation("activation_fn", h, opt.activation);
  h = block.linear("fc2", h, opt.sizes.hidden, {.bias = opt.bias});
  h = block.dropout("dropout_mlp", h, opt.dropout);
  h = block.add("residual_mlp", middle, h);
  if (!opt.norm_before) h = block.layer_norm("final_layer_norm", h, opt.norm);
  return block.finish(h);
}

}  // namespace

Graph build_opt(ConfigReader& config, const SampleShape& sample) {
  const Opt opt = read_opt(config);
  const bool projected = opt.embedding_width != opt.sizes.hidden;
  Graph graph = start_graph(config, opt.sizes, sample);
  check_positions(config, graph, opt.sizes.max_sequence, "max_position_embeddings");

  BlockBuilder embed(graph, "embed");
  TensorRef x = embed.embedding("model.decoder.embed_tokens", kTokenIds, graph.vocabulary,
                                opt.embedding_width);
  if (projected) x = embed.linear("model.decoder.project_in", x, graph.hidden);
  // Counted from the attention mask, so that each sample has positions of its own.
  const TensorRef positions =
      embed.position_embedding("model.decoder.embed_positions",
                               opt.sizes.max_sequence + kPositionOffset, graph.hidden, graph.batch);
  x = embed.add("model.decoder.add_positions", x, positions);
  graph.segments.push_back({1, {embed.finish(x)}});

  graph.segments.push_back({opt.sizes.layers, {opt_layer(graph, opt)}});
  using Norm = HeadOptions::Norm;
  const Norm affine_norm = opt.norm.weight ? Norm::layer : Norm::layer_without_weights;
  add_head(graph, opt.sizes,
           {.norm = opt.final_norm ? affine_norm : Norm::none,
            .norm_name = "model.decoder.final_layer_norm",
            .embedding_name = "model.decoder.embed_tokens",
            .project_name = projected ? "model.decoder.project_out" : "",
            .project_width = opt.embedding_width,
            .widens_logits = false});
  return graph;
}

}  // namespace steelyard::model
