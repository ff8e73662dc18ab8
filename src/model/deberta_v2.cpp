// DeBERTa-v2 and -v3 (transformers 4.57: modeling_deberta_v2.py): BERT's layer with attention that
// adds products of contents with embedded distances, in the model's own code alone. v2 has a
// convolution beside its first layer; its weights bear that layer's prefix here.
#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "model/family.h"
#include "model/image_parts.h"

namespace steelyard::model {

namespace {

enum class Head { masked_lm, sequence_classification, token_classification, question_answering };

struct Deberta {
  Sizes sizes;
  std::int64_t inner = 0, types = 0, labels = 2, embedding = 0;
  ActivationKind activation = ActivationKind::gelu, pooler_activation = ActivationKind::gelu;
  ActivationKind conv_activation = ActivationKind::tanh;
  double hidden_dropout = 0.1, attention_dropout = 0.1, pooler_dropout = 0.0;
  double head_dropout = 0.1;
  bool absolute = true;  // learned positions are added to the tokens
  // Distances: 2 * span of them are embedded; 0: no such attention.
  std::int64_t span = 0;
  bool key_distances = false, query_distances = false;  // c2p, p2c
  bool shares_projections = false, norms_distances = false;
  std::int64_t conv = 0, conv_groups = 1;  // window of the convolution; 0: none
  Head head = Head::masked_lm;
};

// Shared: ids, their mask, embedded distances, then what the batch holds beside.
constexpr TensorRef kMaskIds{true, 1};
constexpr TensorRef kDistances{true, 2};

Head head_of(ConfigReader& config) {
  const std::vector<std::string> classes = config.text_list({"architectures"});
  if (classes.empty()) return Head::masked_lm;
  const std::string& name = classes.front();
  const auto is = [&](std::string_view ending) { return name.ends_with(ending); };
  if (is("ForMaskedLM") || is("Model")) return Head::masked_lm;
  if (is("ForSequenceClassification")) return Head::sequence_classification;
  if (is("ForTokenClassification")) return Head::token_classification;
  if (is("ForQuestionAnswering")) return Head::question_answering;
  config.reject("architectures", "\"" + name + "\"",
                "a class that ends in ForMaskedLM, ForSequenceClassification, "
                "ForTokenClassification or ForQuestionAnswering");
  return Head::masked_lm;
}

// "c2p|p2c", or a list.
bool lists(ConfigReader& config, std::string_view key, std::string_view word) {
  const std::string* joined = config.value(key).as_text();
  if (joined == nullptr) {
    const std::vector<std::string> words = config.text_list({key});
    return std::find(words.begin(), words.end(), word) != words.end();
  }
  std::istringstream parts(*joined);
  for (std::string part; std::getline(parts, part, '|');) {
    part.erase(0, part.find_first_not_of(' '));
    part.erase(part.find_last_not_of(' ') + 1);
    if (part == word) return true;
  }
  return false;
}

void read_distances(ConfigReader& config, Deberta& model) {
  if (!config.flag({"relative_attention"}, false)) return;
  // -1: as many as positions; buckets, where there are, in their place.
  const std::int64_t furthest =
      config.whole({"max_relative_positions"}, -1, {-1, kPositionLimits.most});
  const std::int64_t buckets = config.whole({"position_buckets"}, -1, {-1, kPositionLimits.most});
  model.span = furthest < 1 ? model.sizes.max_sequence : furthest;
  if (buckets > 0) model.span = buckets;
  model.key_distances = lists(config, "pos_att_type", "c2p");
  model.query_distances = lists(config, "pos_att_type", "p2c");
  model.shares_projections = config.flag({"share_att_key"}, false);
  model.norms_distances = lists(config, "norm_rel_ebd", "layer_norm");
}

Deberta read(ConfigReader& config) {
  Deberta model;
  model.sizes = read_sizes(config, {.vocabulary = 128100,
                                    .hidden = 1536,
                                    .layers = 24,
                                    .heads = 24,
                                    .kv_heads = {},
                                    .head_dim = {},
                                    .max_sequence = 512,
                                    .tied = true});
  model.inner = config.whole({"intermediate_size"}, 6144, kWideLimits);
  model.types = config.whole({"type_vocab_size"}, 0, {0, kVocabularyLimits.most});
  model.embedding = config.whole({"embedding_size"}, model.sizes.hidden, kHiddenLimits);
  model.activation = config.activation({"hidden_act"}, "gelu");
  model.pooler_activation = config.activation({"pooler_hidden_act"}, "gelu");
  model.conv_activation = config.activation({"conv_act"}, "tanh");
  model.hidden_dropout = config.probability({"hidden_dropout_prob"}, 0.1);
  model.attention_dropout = config.probability({"attention_probs_dropout_prob"}, 0.1);
  model.pooler_dropout = config.probability({"pooler_dropout"}, 0.0);
  model.head_dropout = config.probability({"cls_dropout"}, model.hidden_dropout);
  model.absolute = config.flag({"position_biased_input"}, true);
  model.conv = config.whole({"conv_kernel_size"}, 0, {0, 1024});
  model.conv_groups = config.whole({"conv_groups"}, 1, kHiddenLimits);
  if (!config.flag({"legacy"}, true)) {
    config.reject("legacy", "false", "true: the other head of masked words is not built");
  }
  model.labels = labels_of(config);
  model.head = head_of(config);
  read_distances(config, model);
  return model;
}

TensorRef shared_named(const Graph& graph, std::string_view name) {
  const auto at = std::find_if(graph.shared.begin(), graph.shared.end(),
                               [&](const TensorInfo& info) { return info.name == name; });
  return {true, static_cast<std::int32_t>(at - graph.shared.begin())};
}

void start_batch(Graph& graph, const Deberta& model) {
  const Shape ids = {graph.batch, graph.sequence};
  const auto whole = [](const char* name, Shape shape) {
    return TensorInfo{name, std::move(shape), ElementKind::token_ids};
  };
  graph.batch_tensors = {whole("input_ids", ids), whole("attention_mask", ids)};
  if (model.types > 0) graph.batch_tensors.push_back(whole("token_type_ids", ids));
  switch (model.head) {
    case Head::masked_lm:
    case Head::token_classification: graph.batch_tensors.push_back(whole("labels", ids)); break;
    case Head::sequence_classification:
      graph.batch_tensors.push_back(whole("labels", {graph.batch}));
      break;
    case Head::question_answering:
      graph.batch_tensors.push_back(whole("start_positions", {graph.batch}));
      graph.batch_tensors.push_back(whole("end_positions", {graph.batch}));
      break;
  }
  const std::int64_t distances = std::max<std::int64_t>(1, 2 * model.span);
  graph.shared = {graph.batch_tensors[0],
                  graph.batch_tensors[1],
                  {"rel_embeddings", {1, distances, model.sizes.hidden}, ElementKind::real}};
  graph.shared.insert(graph.shared.end(), graph.batch_tensors.begin() + 2,
                      graph.batch_tensors.end());
}

Block embed(const Graph& graph, const Deberta& model) {
  const std::string root = "deberta.embeddings.";
  BlockBuilder block(graph, "embed");
  TensorRef x =
      block.embedding(root + "word_embeddings", kTokenIds, model.sizes.vocabulary, model.embedding);
  if (model.absolute) {
    const TensorRef positions = block.position_embedding(root + "position_embeddings",
                                                         model.sizes.max_sequence, model.embedding);
    x = block.add(root + "add_positions", x, positions);
  }
  if (model.types > 0) {
    const TensorRef types =
        block.embedding(root + "token_type_embeddings", shared_named(graph, "token_type_ids"),
                        model.types, model.embedding);
    x = block.add(root + "add_types", x, types);
  }
  if (model.embedding != model.sizes.hidden) {
    x = block.linear(root + "embed_proj", x, model.sizes.hidden);
  }
  x = block.layer_norm(root + "LayerNorm", x);
  x = block.multiply(root + "mask", x,
                     block.values(root + "mask.values", {graph.batch, graph.sequence, 1}));
  x = block.dropout(root + "dropout", x, model.hidden_dropout);
  if (model.span > 0) {
    const TensorRef rows =
        block.parameter("deberta.encoder.rel_embeddings.weight",
                        {2 * model.span, model.sizes.hidden}, WeightRole::embedding);
    if (model.norms_distances) {
      (void)block.layer_norm("deberta.encoder.LayerNorm", rows);
    } else {
      (void)block.view("deberta.encoder.get_rel_embedding", rows, graph.shared[2].shape);
    }
    block.publish(kDistances);
  }
  return block.finish(x);
}

// DisentangledSelfAttention.forward: the distances pass the projections of queries and keys, or
// projections of their own.
TensorRef attention_of(BlockBuilder& block, const Deberta& model, TensorRef x) {
  const Sizes& sizes = model.sizes;
  const std::string module = "attention.self.";
  const LinearOptions biased{.bias = true};
  const auto heads = [&](const std::string& name, TensorRef in) {
    return block.heads(module + name + "_heads", in, sizes.heads);
  };
  const auto projected = [&](const std::string& name) {
    return heads(name, block.linear(module + name, x, sizes.hidden, biased));
  };
  const TensorRef q = projected("query_proj");
  const TensorRef k = projected("key_proj");
  const TensorRef v = projected("value_proj");
  TensorRef keys, queries;
  if (model.span > 0) {
    const TensorRef distances =
        block.dropout(module + "pos_dropout", kDistances, model.hidden_dropout);
    const auto of_distances = [&](const std::string& own, const std::string& shared) {
      const TensorRef y = block.linear(module + own, distances, sizes.hidden, biased);
      if (model.shares_projections) block.share_weight(module + shared);
      return heads(own, y);
    };
    if (model.query_distances) queries = of_distances("pos_query_proj", "query_proj");
    if (model.key_distances) keys = of_distances("pos_key_proj", "key_proj");
  }
  const AttentionShape shape{.heads = sizes.heads,
                             .kv_heads = sizes.heads,
                             .head_dim = sizes.head_dim,
                             .causal = false,
                             .dropout = model.attention_dropout};
  return block.disentangled_attention("attention.self", q, k, v, keys, queries, shape);
}

// ConvLayer.forward: beside the first layer, from the embedded tokens.
TensorRef convolved(BlockBuilder& block, const Deberta& model, TensorRef x, TensorRef residual) {
  const Shape rows = block.shape(x);
  const Shape channels = {rows.at(0), rows.at(2), rows.at(1)};
  TensorRef h = block.view("conv.permute", x, channels, true);
  h = block.contiguous("conv.contiguous", h);
  h = block.conv_as("conv.conv", h,
                    {model.sizes.hidden, model.sizes.hidden / model.conv_groups, model.conv},
                    channels);
  block.last().groups = model.conv_groups;
  h = block.contiguous("conv.back", block.view("conv.permute_back", h, rows, true));
  h = block.dropout("conv.dropout", h, model.hidden_dropout);
  // masked_fill_: the mask is kept, not its expansion.
  const Shape mask = {rows.at(0), rows.at(1), 1};
  h = block.multiply("conv.fill", h, block.values("conv.rmask", mask, ElementKind::boolean));
  h = block.activation("conv.act", h, model.conv_activation);
  h = block.layer_norm("conv.LayerNorm", block.add("conv.residual", residual, h));
  return block.multiply("conv.mask", h, block.values("conv.input_mask", mask));
}

Block layer_of(const Graph& graph, const Deberta& model, bool convolves) {
  const LinearOptions biased{.bias = true};
  BlockBuilder block(graph, "deberta.encoder.layer");
  const TensorRef x = block.input({graph.batch, graph.sequence, model.sizes.hidden});
  TensorRef h = attention_of(block, model, x);
  h = block.linear("attention.output.dense", h, model.sizes.hidden, biased);
  h = block.dropout("attention.output.dropout", h, model.hidden_dropout);
  const TensorRef middle =
      block.layer_norm("attention.output.LayerNorm", block.add("residual_attention", h, x));
  h = block.linear("intermediate.dense", middle, model.inner, biased);
  h = block.activation("intermediate.intermediate_act_fn", h, model.activation);
  h = block.linear("output.dense", h, model.sizes.hidden, biased);
  h = block.dropout("output.dropout", h, model.hidden_dropout);
  h = block.layer_norm("output.LayerNorm", block.add("residual_mlp", h, middle));
  return block.finish(convolves ? convolved(block, model, x, h) : h);
}

TensorRef masked_lm(BlockBuilder& block, const Deberta& model, TensorRef x, TensorRef labels) {
  x = block.linear("cls.predictions.transform.dense", x, model.embedding, {.bias = true});
  x = block.activation("cls.predictions.transform.act", x, model.activation);
  x = block.layer_norm("cls.predictions.transform.LayerNorm", x);
  const std::string tied = model.sizes.tied ? "deberta.embeddings.word_embeddings.weight" : "";
  x = block.linear("cls.predictions.decoder", x, model.sizes.vocabulary,
                   {.bias = true, .tied_to = tied});
  return block.loss(OperatorKind::masked_lm_loss, {x, labels}, "loss");
}

Block head(const Graph& graph, const Deberta& model) {
  const LinearOptions biased{.bias = true};
  BlockBuilder block(graph, "head");
  TensorRef x = block.input({graph.batch, graph.sequence, model.sizes.hidden});
  const TensorRef labels = shared_named(graph, "labels");
  if (model.head == Head::masked_lm) return block.finish(masked_lm(block, model, x, labels));
  if (model.head == Head::question_answering) {
    x = block.linear("qa_outputs", x, 2, biased);
    return block.finish(block.loss(
        OperatorKind::span_loss,
        {x, shared_named(graph, "start_positions"), shared_named(graph, "end_positions")}, "loss"));
  }
  if (model.head == Head::sequence_classification) {  // ContextPooler
    x = block.first_token("first_token", x);
    x = block.dropout("pooler.dropout", x, model.pooler_dropout);
    x = block.linear("pooler.dense", x, model.sizes.hidden, biased);
    x = block.activation("pooler.act", x, model.pooler_activation);
  }
  const bool sentence = model.head == Head::sequence_classification;
  x = block.dropout("dropout", x, sentence ? model.head_dropout : model.hidden_dropout);
  x = block.linear("classifier", x, model.labels, biased);
  return block.finish(block.loss(OperatorKind::classification_loss, {x, labels}, "loss"));
}

}  // namespace

Graph build_deberta_v2(ConfigReader& config, const SampleShape& sample) {
  const Deberta model = read(config);
  Graph graph = start_graph(config, model.sizes, sample);
  start_batch(graph, model);
  if (model.absolute) {
    check_positions(config, graph, model.sizes.max_sequence, "max_position_embeddings");
  }
  graph.segments.push_back({1, {embed(graph, model)}});
  const std::int64_t first = model.conv > 0 ? 1 : 0;
  if (first > 0) graph.segments.push_back({1, {layer_of(graph, model, true)}});
  if (model.sizes.layers > first) {
    graph.segments.push_back({model.sizes.layers - first, {layer_of(graph, model, false)}});
  }
  graph.segments.push_back({1, {head(graph, model)}});
  return graph;
}

}  // namespace steelyard::model
