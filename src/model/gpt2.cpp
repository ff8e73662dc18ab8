// GPT-2 (transformers: modeling_gpt2.py): learned positions, pre-norm LayerNorm, fused projections
// held as Conv1D, whose weight is stored [in,out].
#include "model/family.h"

namespace steelyard::model {

namespace {

struct Gpt2 {
  Sizes sizes;
  std::int64_t inner = 0;  // feed-forward width
  ActivationKind activation = ActivationKind::gelu_new;
  double embedding_dropout = 0.0, attention_dropout = 0.0, residual_dropout = 0.0;
};

Gpt2 read_gpt2(ConfigReader& config) {
  Gpt2 gpt2;
  Sizes& sizes = gpt2.sizes;
  sizes.vocabulary = config.whole({"vocab_size"}, 50257, kVocabularyLimits);
  sizes.hidden = config.whole({"n_embd", "hidden_size"}, 768, kHiddenLimits);
  sizes.layers = config.whole({"n_layer", "num_hidden_layers"}, 12, kLayerLimits);
  sizes.heads = config.whole({"n_head", "num_attention_heads"}, 12, kHeadLimits);
  sizes.kv_heads = sizes.heads;
  sizes.head_dim = divided_heads(config, sizes.hidden, sizes.heads, "n_embd", "n_head");
  sizes.max_sequence =
      config.whole({"n_positions", "max_position_embeddings"}, 1024, kPositionLimits);
  sizes.tied = config.flag({"tie_word_embeddings"}, true);
  if (config.flag({"add_cross_attention"}, false)) {
    config.reject("add_cross_attention", "true", "false: a decoder beside an encoder is not built");
  }
  gpt2.inner = config.whole({"n_inner"}, 4 * sizes.hidden, kWideLimits);
  gpt2.activation = config.activation({"activation_function"}, "gelu_new");
  gpt2.embedding_dropout = config.probability({"embd_pdrop"}, 0.1);
  gpt2.attention_dropout = config.probability({"attn_pdrop"}, 0.1);
  gpt2.residual_dropout = config.probability({"resid_pdrop"}, 0.1);
  return gpt2;
}

Block gpt2_layer(const Graph& graph, const Gpt2& gpt2) {
  const Sizes& sizes = gpt2.sizes;
  const LinearOptions conv1d{.bias = true, .in_by_out = true};
  BlockBuilder block(graph, "transformer.h");
  const TensorRef x = block.input({graph.batch, graph.sequence, sizes.hidden});
  TensorRef h = block.layer_norm("ln_1", x);
  h = block.linear("attn.c_attn", h, 3 * sizes.hidden, conv1d);
  const auto qkv =
      block.split("attn.split", h, {{"q", sizes.hidden}, {"k", sizes.hidden}, {"v", sizes.hidden}});
  const TensorRef q = block.heads("attn.q_heads", qkv[0], sizes.heads);
  const TensorRef k = block.heads("attn.k_heads", qkv[1], sizes.heads);
  const TensorRef v = block.heads("attn.v_heads", qkv[2], sizes.heads);
  h = block.attention("attn", q, k, v,
                      {.heads = sizes.heads,
                       .kv_heads = sizes.heads,
                       .head_dim = sizes.head_dim,
                       .dropout = gpt2.attention_dropout,
                       .masks_by_where = true});
  h = block.linear("attn.c_proj", h, sizes.hidden, conv1d);
  h = block.dropout("attn.resid_dropout", h, gpt2.residual_dropout);
  const TensorRef middle = block.add("residual_attention", h, x);
  h = block.layer_norm("ln_2", middle);
  h = block.linear("mlp.c_fc", h, gpt2.inner, conv1d);
  h = block.activation("mlp.act", h, gpt2.activation);
  h = block.linear("mlp.c_proj", h, sizes.hidden, conv1d);
  h = block.dropout("mlp.dropout", h, gpt2.residual_dropout);
  return block.finish(block.add("residual_mlp", middle, h));
}

}  // namespace

Graph build_gpt2(ConfigReader& config, const SampleShape& sample) {
  const Gpt2 gpt2 = read_gpt2(config);
  Graph graph = start_graph(config, gpt2.sizes, sample);
  check_positions(config, graph, gpt2.sizes.max_sequence, "n_positions");
  add_embed(graph, {.name = "transformer.wte",
                    .position_name = "transformer.wpe",
                    .positions = gpt2.sizes.max_sequence,
                    .dropout = gpt2.embedding_dropout});
  graph.segments.push_back({gpt2.sizes.layers, {gpt2_layer(graph, gpt2)}});
  add_head(graph, gpt2.sizes,
           {.norm = HeadOptions::Norm::layer,
            .norm_name = "transformer.ln_f",
            .embedding_name = "transformer.wte",
            .widens_logits = false});
  return graph;
}

}  // namespace steelyard::model
