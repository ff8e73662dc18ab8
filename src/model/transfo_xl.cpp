// Transformer-XL (NVIDIA/DeepLearningExamples, PyTorch/LanguageModeling/Transformer-XL/pytorch,
// mem_transformer.py; the configuration as transformers' TransfoXLConfig has it): each layer reads
// its own inputs of the step before beside the present ones, positions are distances. The softmax
// is over the whole vocabulary.
#include "model/family.h"

namespace steelyard::model {

namespace {

// Shared tensors behind the token ids.
constexpr TensorRef kTargets{true, 1};    // [B,S]
constexpr TensorRef kMemory{true, 2};     // [B,M,H], what a layer remembers; exists before the step
constexpr TensorRef kSteps{true, 3};      // [M+S], distances
constexpr TensorRef kDistances{true, 4};  // [M+S,H], their sines

struct TransfoXl {
  Sizes sizes;
  std::int64_t inner = 0, memory = 0;
  double dropout = 0.1, attention_dropout = 0.0;
};

TransfoXl read_transfo_xl(ConfigReader& config) {
  TransfoXl xl;
  Sizes& sizes = xl.sizes;
  sizes.vocabulary = config.whole({"vocab_size"}, 267735, kVocabularyLimits);
  sizes.hidden = config.whole({"d_model", "hidden_size"}, 1024, kHiddenLimits);
  sizes.layers = config.whole({"n_layer", "num_hidden_layers"}, 18, kLayerLimits);
  sizes.heads = config.whole({"n_head", "num_attention_heads"}, 16, kHeadLimits);
  sizes.kv_heads = sizes.heads;
  sizes.head_dim = config.whole({"d_head"}, 64, kHiddenLimits);
  sizes.tied = config.flag({"tie_word_embeddings", "tie_weight"}, true);
  xl.inner = config.whole({"d_inner"}, 4096, kWideLimits);
  xl.memory = config.whole({"mem_len"}, 1600, kPositionLimits);
  xl.dropout = config.probability({"dropout"}, 0.1);
  xl.attention_dropout = config.probability({"dropatt"}, 0.0);
  const auto refuse = [&](std::string_view key, std::string found, std::string accepted) {
    config.reject(key, std::move(found), std::move(accepted),
                  "an adaptive softmax is not built: the vocabulary is one cluster");
  };
  if (config.flag({"adaptive"}, true)) refuse("adaptive", "true", "false");
  if (config.whole({"div_val"}, 4, kPositionLimits) != 1) refuse("div_val", "not 1", "1");
  const std::int64_t embedded = config.whole({"d_embed"}, sizes.hidden, kHiddenLimits);
  if (embedded != sizes.hidden) {
    refuse("d_embed", std::to_string(embedded), "d_model = " + std::to_string(sizes.hidden));
  }
  if (config.flag({"pre_lnorm"}, false)) {
    config.reject("pre_lnorm", "true", "false: norms before each half are not built");
  }
  return xl;
}

// RelPartialLearnableDecoderLayer.
Block transfo_xl_layer(const Graph& graph, const TransfoXl& xl) {
  BlockBuilder block(graph, "layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, graph.hidden});
  const AttentionShape shape{.heads = xl.sizes.heads,
                             .kv_heads = xl.sizes.heads,
                             .head_dim = xl.sizes.head_dim,
                             .dropout = xl.attention_dropout};
  TensorRef h =
      block.recurrent_attention("dec_attn", x, kMemory, kDistances, shape, "r_w_bias", "r_r_bias");
  h = block.linear("dec_attn.o_net", h, graph.hidden);
  h = block.dropout("dec_attn.drop", h, xl.dropout);
  h = block.layer_norm("dec_attn.layer_norm", block.add("dec_attn.residual", x, h));
  const TensorRef middle = h;
  h = block.linear("pos_ff.CoreNet.0", h, xl.inner, {.bias = true});
  h = block.activation_in_place("pos_ff.CoreNet.1", h, ActivationKind::relu);
  h = block.dropout("pos_ff.CoreNet.2", h, xl.dropout);
  h = block.linear("pos_ff.CoreNet.3", h, graph.hidden, {.bias = true});
  h = block.dropout("pos_ff.CoreNet.4", h, xl.dropout);
  return block.finish(
      block.layer_norm("pos_ff.layer_norm", block.add("pos_ff.residual", middle, h)));
}

void start_memory(Graph& graph, const TransfoXl& xl) {
  const std::int64_t keys = xl.memory + graph.sequence;
  graph.shared.push_back(graph.batch_tensors.back());
  graph.shared.push_back({"mems", {graph.batch, xl.memory, graph.hidden}, ElementKind::pixels});
  graph.shared.push_back({"pos_seq", {keys}, ElementKind::token_ids});
  graph.shared.push_back({"pos_emb", {keys, graph.hidden}, ElementKind::real});
  // The memory of all layers, and the one that this step leaves (_update_mems).
  const Shape all = {graph.layers, graph.batch, xl.memory, graph.hidden};
  graph.batch_tensors.push_back({"mems", all, ElementKind::pixels});
  graph.batch_tensors.push_back({"new mems", all, ElementKind::pixels});
}

void add_start(Graph& graph, const TransfoXl& xl) {
  const Shape bias = {xl.sizes.heads, xl.sizes.head_dim};
  BlockBuilder block(graph, "embed");
  block.own_weight("r_w_bias", bias);
  block.own_weight("r_r_bias", bias);
  TensorRef x = block.embedding("word_emb.emb_layers.0", kTokenIds, graph.vocabulary, graph.hidden);
  x = block.dropout("word_emb.drop", x, xl.dropout);
  const TensorRef sines = block.timestep_embedding("pos_emb", kSteps, graph.hidden);
  block.dropout("pos_emb.drop", sines, xl.dropout);
  block.publish(kDistances);
  graph.segments.push_back({1, {block.finish(x)}});
}

}  // namespace

Graph build_transfo_xl(ConfigReader& config, const SampleShape& sample) {
  const TransfoXl xl = read_transfo_xl(config);
  Graph graph = start_graph(config, xl.sizes, sample);
  start_memory(graph, xl);
  add_start(graph, xl);
  graph.segments.push_back({xl.sizes.layers, {transfo_xl_layer(graph, xl)}});
  BlockBuilder block(graph, "head");
  TensorRef x = block.input({graph.batch, graph.sequence, graph.hidden});
  x = block.dropout("drop", x, xl.dropout);
  x = block.linear("crit.out_layers.0", x, graph.vocabulary,
                   {.bias = true, .tied_to = xl.sizes.tied ? "word_emb.emb_layers.0.weight" : ""});
  graph.segments.push_back(
      {1, {block.finish(block.loss(OperatorKind::masked_lm_loss, {x, kTargets}, "loss"))}});
  return graph;
}

}  // namespace steelyard::model
