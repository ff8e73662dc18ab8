// ModernBERT (transformers 4.57: modeling_modernbert.py): an encoder with norms before its halves
// (none before the first attention), rotary positions, a gated feed-forward network out of one
// projection, and windows in all but every n-th layer. Not followed: reference_compile, which hands
// the feed-forward network to torch.compile where Triton is there.
#include <string>
#include <vector>

#include "model/decoder_parts.h"
#include "model/family.h"
#include "model/image_parts.h"

namespace steelyard::model {

namespace {

enum class Head { masked_lm, sequence_classification, token_classification };

struct ModernBert {
  Sizes sizes;
  std::int64_t inner = 0, window = 0, labels = 2;
  ActivationKind activation = ActivationKind::gelu, head_activation = ActivationKind::gelu;
  LayerNormOptions norm;
  bool attention_bias = false, mlp_bias = false, head_bias = false, decoder_bias = true;
  bool pools_mean = false;
  double attention_dropout = 0.0, mlp_dropout = 0.0, embedding_dropout = 0.0, head_dropout = 0.0;
  Head head = Head::masked_lm;
};

// Shared: ids, their mask, labels, the two masks of attention. Each layer has a rotary table.
constexpr TensorRef kMaskIds{true, 1};
constexpr TensorRef kLabels{true, 2};
constexpr TensorRef kGlobalMask{true, 3};
constexpr TensorRef kLocalMask{true, 4};

constexpr int kLocal = 1, kFirst = 2;

Head head_of(ConfigReader& config) {
  const std::vector<std::string> classes = config.text_list({"architectures"});
  if (classes.empty()) return Head::masked_lm;
  const std::string& name = classes.front();
  if (name.ends_with("ForMaskedLM") || name.ends_with("Model")) return Head::masked_lm;
  if (name.ends_with("ForSequenceClassification")) return Head::sequence_classification;
  if (name.ends_with("ForTokenClassification")) return Head::token_classification;
  config.reject("architectures", "\"" + name + "\"",
                "a class that ends in ForMaskedLM, ForSequenceClassification or "
                "ForTokenClassification");
  return Head::masked_lm;
}

ModernBert read(ConfigReader& config) {
  ModernBert model;
  model.sizes = read_sizes(config, {.vocabulary = 50368,
                                    .hidden = 768,
                                    .layers = 22,
                                    .heads = 12,
                                    .kv_heads = {},
                                    .head_dim = {},
                                    .max_sequence = 8192,
                                    .tied = true});
  model.inner = config.whole({"intermediate_size"}, 1152, kWideLimits);
  model.window = config.whole({"local_attention"}, 128, kWindowLimits);
  model.activation = config.activation({"hidden_activation"}, "gelu");
  model.head_activation = config.activation({"classifier_activation"}, "gelu");
  model.norm = {.weight = true, .bias = config.flag({"norm_bias"}, false)};
  model.attention_bias = config.flag({"attention_bias"}, false);
  model.mlp_bias = config.flag({"mlp_bias"}, false);
  model.head_bias = config.flag({"classifier_bias"}, false);
  model.decoder_bias = config.flag({"decoder_bias"}, true);
  model.pools_mean = config.choice({"classifier_pooling"}, "cls", {"cls", "mean"}) == "mean";
  model.attention_dropout = config.probability({"attention_dropout"}, 0.0);
  model.mlp_dropout = config.probability({"mlp_dropout"}, 0.0);
  model.embedding_dropout = config.probability({"embedding_dropout"}, 0.0);
  model.head_dropout = config.probability({"classifier_dropout"}, 0.0);
  model.labels = labels_of(config);
  model.head = head_of(config);
  return model;
}

Graph start(ConfigReader& config, const SampleShape& sample, const ModernBert& model) {
  Graph graph = start_graph(config, model.sizes, sample);
  const Shape ids = {graph.batch, graph.sequence};
  const Shape labels = model.head == Head::sequence_classification ? Shape{graph.batch} : ids;
  graph.batch_tensors = {{"input_ids", ids, ElementKind::token_ids},
                         {"attention_mask", ids, ElementKind::token_ids},
                         {"labels", labels, ElementKind::token_ids}};
  graph.shared = graph.batch_tensors;
  const Shape mask = {graph.batch, 1, graph.sequence, graph.sequence};
  graph.shared.push_back({"global_attention_mask", mask, ElementKind::real});
  graph.shared.push_back({"sliding_window_mask", mask, ElementKind::real});
  return graph;
}

Block embed(const Graph& graph, const ModernBert& model) {
  BlockBuilder block(graph, "embed");
  const std::string module = "model.embeddings.";
  TensorRef x = block.embedding(module + "tok_embeddings", kTokenIds, model.sizes.vocabulary,
                                model.sizes.hidden);
  x = block.layer_norm(module + "norm", x, model.norm);
  x = block.dropout(module + "drop", x, model.embedding_dropout);
  block.padding_mask("global_attention_mask", kMaskIds, kGlobalMask);
  block.padding_mask("sliding_window_mask", kMaskIds, kLocalMask);
  return block.finish(x);
}

Block layer_of(const Graph& graph, const ModernBert& model, int kind) {
  const Sizes& sizes = model.sizes;
  const bool local = (kind & kLocal) != 0;
  BlockBuilder block(graph, "model.layers");
  const TensorRef x = block.input({graph.batch, graph.sequence, sizes.hidden});
  TensorRef h = (kind & kFirst) != 0 ? x : block.layer_norm("attn_norm", x, model.norm);
  h = block.linear("attn.Wqkv", h, 3 * sizes.hidden, {.bias = model.attention_bias});
  const auto parts = block.chunk("attn.split", h, 3);
  TensorRef q = block.heads("attn.q_heads", parts[0], sizes.heads);
  TensorRef k = block.heads("attn.k_heads", parts[1], sizes.heads);
  const TensorRef v = block.heads("attn.v_heads", parts[2], sizes.heads);
  const auto [cos, sin] =
      block.own_rotary_table("attn.rotary_emb", h, {1, graph.sequence, sizes.head_dim});
  const auto turned = block.rotary("attn.rotary", q, k, cos, sin, sizes.head_dim);
  const AttentionShape shape{.heads = sizes.heads,
                             .kv_heads = sizes.heads,
                             .head_dim = sizes.head_dim,
                             .causal = false,
                             .window = local ? model.window : 0,
                             .dropout = model.attention_dropout,
                             .softmax_in_fp32 = true,
                             .padding_mask = true};
  h = block.masked_attention("attn", turned.first, turned.second, v,
                             local ? kLocalMask : kGlobalMask, shape);
  h = block.linear("attn.Wo", h, sizes.hidden, {.bias = model.attention_bias});
  h = block.dropout("attn.out_drop", h, model.attention_dropout);
  const TensorRef middle = block.add("residual_attention", x, h);
  h = block.layer_norm("mlp_norm", middle, model.norm);
  h = block.linear("mlp.Wi", h, 2 * model.inner, {.bias = model.mlp_bias});
  h = block.fused_gated_activation("mlp.act", h, model.activation);
  h = block.dropout("mlp.drop", h, model.mlp_dropout);
  h = block.linear("mlp.Wo", h, sizes.hidden, {.bias = model.mlp_bias});
  return block.finish(block.add("residual_mlp", middle, h));
}

TensorRef prediction_head(BlockBuilder& block, const ModernBert& model, TensorRef x) {
  x = block.linear("head.dense", x, model.sizes.hidden, {.bias = model.head_bias});
  x = block.activation("head.act", x, model.head_activation);
  return block.layer_norm("head.norm", x, model.norm);
}

Block head(const Graph& graph, const ModernBert& model) {
  BlockBuilder block(graph, "head");
  TensorRef x = block.input({graph.batch, graph.sequence, model.sizes.hidden});
  x = block.layer_norm("model.final_norm", x, model.norm);
  if (model.head == Head::masked_lm) {
    const std::string tied = model.sizes.tied ? "model.embeddings.tok_embeddings.weight" : "";
    x = block.linear("decoder", prediction_head(block, model, x), model.sizes.vocabulary,
                     {.bias = model.decoder_bias, .tied_to = tied});
    x = block.loss(OperatorKind::masked_lm_loss, {x, kLabels}, "loss");
    block.last().wide = true;
    return block.finish(x);
  }
  if (model.head == Head::sequence_classification) {
    x = model.pools_mean ? block.global_average_pool("pool", x) : block.first_token("pool", x);
  }
  x = block.dropout("drop", prediction_head(block, model, x), model.head_dropout);
  x = block.linear("classifier", x, model.labels, {.bias = true});
  return block.finish(block.loss(OperatorKind::classification_loss, {x, kLabels}, "loss"));
}

}  // namespace

Graph build_modernbert(ConfigReader& config, const SampleShape& sample) {
  const ModernBert model = read(config);
  const std::int64_t every = config.whole({"global_attn_every_n_layers"}, 3, kLayerLimits);
  Graph graph = start(config, sample, model);
  graph.segments.push_back({1, {embed(graph, model)}});
  // The first layer is a kind of its own; the cycle of the others begins behind it.
  graph.segments.push_back({1, {layer_of(graph, model, kFirst)}});
  std::vector<int> kinds;
  for (std::int64_t i = 1; i < model.sizes.layers; ++i)
    kinds.push_back(i % every != 0 ? kLocal : 0);
  if (!kinds.empty()) {
    add_layers(graph, kinds, [&](int kind) { return layer_of(graph, model, kind); });
  }
  graph.segments.push_back({1, {head(graph, model)}});
  return graph;
}

}  // namespace steelyard::model
