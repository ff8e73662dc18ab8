// GPT-J (transformers: modeling_gptj.py): attention and feed-forward beside each other behind one
// LayerNorm, the first rotary_dim dimensions of each head turn, a bias in the head.
#include "model/decoder_parts.h"
#include "model/family.h"

namespace steelyard::model {

namespace {

struct Gptj {
  Sizes sizes;
  AttentionPart attention;
  MlpPart mlp;
  double embedding_dropout = 0.0, residual_dropout = 0.0;
};

Gptj read_gptj(ConfigReader& config) {
  Gptj gptj;
  Sizes& sizes = gptj.sizes;
  sizes.vocabulary = config.whole({"vocab_size"}, 50400, kVocabularyLimits);
  sizes.hidden = config.whole({"n_embd", "hidden_size"}, 4096, kHiddenLimits);
  sizes.layers = config.whole({"n_layer", "num_hidden_layers"}, 28, kLayerLimits);
  sizes.heads = config.whole({"n_head", "num_attention_heads"}, 16, kHeadLimits);
  sizes.kv_heads = sizes.heads;
  sizes.head_dim = divided_heads(config, sizes.hidden, sizes.heads, "n_embd", "n_head");
  sizes.max_sequence =
      config.whole({"n_positions", "max_position_embeddings"}, 2048, kPositionLimits);
  sizes.tied = config.flag({"tie_word_embeddings"}, false);

  gptj.attention = attention_part(sizes);
  gptj.attention.module = "attn";
  gptj.attention.out = "out_proj";
  // null turns the whole head.
  const std::int64_t whole_head = sizes.head_dim;
  gptj.attention.rotary_dims =
      config.whole({"rotary_dim"}, config.is_null("rotary_dim") ? whole_head : 64,
                   {.least = 2, .most = kHiddenLimits.most});
  if (gptj.attention.rotary_dims > whole_head) {
    config.reject("rotary_dim", std::to_string(gptj.attention.rotary_dims),
                  "at most the " + std::to_string(whole_head) + " dimensions of a head");
  }
  gptj.attention.shape.dropout = config.probability({"attn_pdrop"}, 0.0);
  gptj.mlp = {.intermediate = config.whole({"n_inner"}, 4 * sizes.hidden, kWideLimits),
              .activation = config.activation({"activation_function"}, "gelu_new"),
              .bias = true,
              .up = "fc_in",
              .down = "fc_out",
              .act = "act"};
  gptj.residual_dropout = config.probability({"resid_pdrop"}, 0.0);
  gptj.embedding_dropout = config.probability({"embd_pdrop"}, 0.0);
  return gptj;
}

Block gptj_layer(const Graph& graph, const Gptj& gptj) {
  BlockBuilder block(graph, "transformer.h");
  const TensorRef x = block.input({graph.batch, graph.sequence, gptj.sizes.hidden});
  const TensorRef normed = block.layer_norm("ln_1", x);
  TensorRef mixed = add_attention(block, normed, gptj.attention);
  mixed = block.dropout("attn.resid_dropout", mixed, gptj.residual_dropout);
  TensorRef fed = add_plain_mlp(block, normed, gptj.mlp);
  fed = block.dropout("mlp.dropout", fed, gptj.residual_dropout);
  const TensorRef both = block.add("residual_attention", mixed, fed);
  return block.finish(block.add("residual_mlp", both, x));
}

}  // namespace

Graph build_gptj(ConfigReader& config, const SampleShape& sample) {
  const Gptj gptj = read_gptj(config);
  Graph graph = start_graph(config, gptj.sizes, sample);
  add_embed(graph, {.name = "transformer.wte",
                    .rotary_dims = gptj.attention.rotary_dims,
                    .rotary_name = "transformer.rotary",
                    .dropout = gptj.embedding_dropout});
  graph.segments.push_back({gptj.sizes.layers, {gptj_layer(graph, gptj)}});
  add_head(graph, gptj.sizes,
           {.norm = HeadOptions::Norm::layer,
            .norm_name = "transformer.ln_f",
            .embedding_name = "transformer.wte",
            .bias = true});
  return graph;
}

}  // namespace steelyard::model
