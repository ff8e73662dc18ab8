// Encoders with norms behind the residual sums: BERT, RoBERTa, DistilBERT, ELECTRA (transformers 4:
// modeling_bert.py, modeling_roberta.py, modeling_distilbert.py, modeling_electra.py) with the
// heads that their "architectures" name.
#include <algorithm>

#include "model/family.h"
#include "model/image_parts.h"

namespace steelyard::model {

namespace {

enum class Head {
  masked_lm,
  pre_training,
  sequence_classification,
  token_classification,
  question_answering
};

struct Encoder {
  Sizes sizes;
  std::int64_t inner = 0, types = 0, labels = 2;
  ActivationKind activation = ActivationKind::gelu;
  double hidden_dropout = 0.1, attention_dropout = 0.1;
  Head head = Head::masked_lm;
  std::string root;               // "bert"
  bool distilled = false;         // DistilBERT's names, no token types, masked_fill
  bool electra = false;           // embeds in fewer dimensions, heads of its own
  std::int64_t embedding = 0;     // ELECTRA's width of embeddings; 0: hidden
  bool positions_of_ids = false;  // RoBERTa: positions are counted from the ids, for each sample
};

constexpr TensorRef kPaddingMask{true, 1};
constexpr TensorRef kTypeIds{true, 2};

// "BertForMaskedLM" -> masked_lm.
Head head_of(ConfigReader& config) {
  const std::vector<std::string> classes = config.text_list({"architectures"});
  if (classes.empty()) return Head::masked_lm;
  const std::string& name = classes.front();
  const auto is = [&](std::string_view ending) { return name.ends_with(ending); };
  if (is("ForMaskedLM") || is("LMHeadModel") || is("Model")) return Head::masked_lm;
  if (is("ForPreTraining")) return Head::pre_training;
  if (is("ForSequenceClassification")) return Head::sequence_classification;
  if (is("ForTokenClassification")) return Head::token_classification;
  if (is("ForQuestionAnswering")) return Head::question_answering;
  config.reject("architectures", "\"" + name + "\"",
                "a class that ends in ForMaskedLM, ForPreTraining, ForSequenceClassification, "
                "ForTokenClassification or ForQuestionAnswering",
                "a fine-tuning that starts from the file names its own class: model.set = { "
                "architectures = [...] }");
  return Head::masked_lm;
}

// What the loader brings: ids, their mask, and the labels of the head.
void start_batch(Graph& graph, const Encoder& encoder) {
  const Shape ids = {graph.batch, graph.sequence};
  const auto whole = [](const char* name, Shape shape) {
    return TensorInfo{name, std::move(shape), ElementKind::token_ids};
  };
  graph.batch_tensors = {whole("input_ids", ids), whole("attention_mask", ids)};
  if (encoder.types > 0) graph.batch_tensors.push_back(whole("token_type_ids", ids));
  switch (encoder.head) {
    case Head::masked_lm:
    case Head::token_classification: graph.batch_tensors.push_back(whole("labels", ids)); break;
    case Head::pre_training:
      graph.batch_tensors.push_back(whole("labels", ids));
      if (encoder.electra) break;
      graph.batch_tensors.push_back(whole("next_sentence_label", {graph.batch}));
      break;
    case Head::sequence_classification:
      graph.batch_tensors.push_back(whole("labels", {graph.batch}));
      break;
    case Head::question_answering:
      graph.batch_tensors.push_back(whole("start_positions", {graph.batch}));
      graph.batch_tensors.push_back(whole("end_positions", {graph.batch}));
      break;
  }
  // Shared: ids, the additive mask, then what the batch holds beside the ids.
  graph.shared = {graph.batch_tensors[0],
                  {"padding_mask", {graph.batch, 1, 1, graph.sequence}, ElementKind::real}};
  graph.shared.insert(graph.shared.end(), graph.batch_tensors.begin() + 1,
                      graph.batch_tensors.end());
}

TensorRef shared_named(const Graph& graph, std::string_view name) {
  const auto at = std::find_if(graph.shared.begin(), graph.shared.end(),
                               [&](const TensorInfo& info) { return info.name == name; });
  return {true, static_cast<std::int32_t>(at - graph.shared.begin())};
}

std::int64_t width_of_embeddings(const Encoder& encoder) {
  return encoder.embedding > 0 ? encoder.embedding : encoder.sizes.hidden;
}

void add_embed(Graph& graph, const Encoder& encoder) {
  const std::string root = encoder.root + ".embeddings.";
  const std::int64_t hidden = width_of_embeddings(encoder);
  BlockBuilder block(graph, "embed");
  block.padding_mask("attention_mask", shared_named(graph, "attention_mask"), kPaddingMask);
  TensorRef x =
      block.embedding(root + "word_embeddings", kTokenIds, encoder.sizes.vocabulary, hidden);
  if (encoder.types > 0) {
    const TensorRef types =
        block.embedding(root + "token_type_embeddings", shared_named(graph, "token_type_ids"),
                        encoder.types, hidden);
    x = block.add(root + "add_types", x, types);
  }
  const TensorRef positions =
      block.position_embedding(root + "position_embeddings", encoder.sizes.max_sequence, hidden,
                               encoder.positions_of_ids ? graph.batch : 1);
  x = encoder.distilled ? block.add(root + "add_positions", x, positions)
                        : block.add_in_place(root + "add_positions", x, positions);
  x = block.layer_norm(root + "LayerNorm", x);
  x = block.dropout(root + "dropout", x, encoder.hidden_dropout);
  if (hidden != encoder.sizes.hidden) {
    x = block.linear(encoder.root + ".embeddings_project", x, encoder.sizes.hidden, {.bias = true});
  }
  graph.segments.push_back({1, {block.finish(x)}});
}

// Module names inside a layer.
struct LayerNames {
  std::string q, k, v, attention, out, out_norm, up, act, down, down_norm;
};

LayerNames names_of(const Encoder& encoder) {
  if (encoder.distilled) {
    return {"attention.q_lin",   "attention.k_lin",  "attention.v_lin", "attention",
            "attention.out_lin", "sa_layer_norm",    "ffn.lin1",        "ffn.activation",
            "ffn.lin2",          "output_layer_norm"};
  }
  return {"attention.self.query",   "attention.self.key",
          "attention.self.value",   "attention.self",
          "attention.output.dense", "attention.output.LayerNorm",
          "intermediate.dense",     "intermediate.intermediate_act_fn",
          "output.dense",           "output.LayerNorm"};
}

Block encoder_layer(const Graph& graph, const Encoder& encoder) {
  const Sizes& sizes = encoder.sizes;
  const LayerNames names = names_of(encoder);
  const LinearOptions biased{.bias = true};
  BlockBuilder block(graph,
                     encoder.root + (encoder.distilled ? ".transformer.layer" : ".encoder.layer"));
  const TensorRef x = block.input({graph.batch, graph.sequence, sizes.hidden});
  const auto projected = [&](const std::string& name) {
    return block.heads(name + "_heads", block.linear(name, x, sizes.hidden, biased), sizes.heads);
  };
  const TensorRef q = projected(names.q);
  const TensorRef k = projected(names.k);
  const TensorRef v = projected(names.v);
  const AttentionShape shape{.heads = sizes.heads,
                             .kv_heads = sizes.heads,
                             .head_dim = sizes.head_dim,
                             .causal = false,
                             .dropout = encoder.attention_dropout,
                             .padding_mask = true,
                             .casts_probabilities = false};
  TensorRef h = block.masked_attention(names.attention, q, k, v, kPaddingMask, shape);
  h = block.linear(names.out, h, sizes.hidden, biased);
  if (!encoder.distilled) h = block.dropout(names.out + ".dropout", h, encoder.hidden_dropout);
  h = block.layer_norm(names.out_norm, block.add("residual_attention", h, x));
  const TensorRef middle = h;
  h = block.linear(names.up, h, encoder.inner, biased);
  h = block.activation(names.act, h, encoder.activation);
  h = block.linear(names.down, h, sizes.hidden, biased);
  h = block.dropout(names.down + ".dropout", h, encoder.hidden_dropout);
  h = block.layer_norm(names.down_norm, block.add("residual_mlp", h, middle));
  return block.finish(h);
}

struct MlmNames {
  std::string dense, norm, decoder;
};

MlmNames mlm_names(const Encoder& encoder) {
  if (encoder.distilled) return {"vocab_transform", "vocab_layer_norm", "vocab_projector"};
  if (encoder.electra) {
    return {"generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head"};
  }
  if (encoder.positions_of_ids) return {"lm_head.dense", "lm_head.layer_norm", "lm_head.decoder"};
  return {"cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm",
          "cls.predictions.decoder"};
}

TensorRef masked_lm(const Graph& graph, BlockBuilder& block, TensorRef x, const Encoder& encoder) {
  const MlmNames names = mlm_names(encoder);
  x = block.linear(names.dense, x, width_of_embeddings(encoder), {.bias = true});
  // ElectraGeneratorPredictions: get_activation("gelu"), whatever hidden_act says.
  x = block.activation(names.dense + ".act", x,
                       encoder.electra ? ActivationKind::gelu : encoder.activation);
  x = block.layer_norm(names.norm, x);
  const std::string tied =
      encoder.sizes.tied ? encoder.root + ".embeddings.word_embeddings.weight" : "";
  x = block.linear(names.decoder, x, encoder.sizes.vocabulary, {.bias = true, .tied_to = tied});
  return block.loss(OperatorKind::masked_lm_loss, {x, shared_named(graph, "labels")}, "loss");
}

// BertPooler; RoBERTa and DistilBERT have the like inside of their heads.
TensorRef pooled(BlockBuilder& block, TensorRef x, const Encoder& encoder) {
  x = block.first_token("first_token", x);
  std::string name = encoder.root + ".pooler.dense";
  if (encoder.distilled) name = "pre_classifier";
  const bool own_head = encoder.positions_of_ids || encoder.electra;
  if (own_head) name = "classifier.dense";
  // RobertaClassificationHead and ElectraClassificationHead drop before their dense layer too.
  if (own_head) x = block.dropout(name + ".before", x, encoder.hidden_dropout);
  x = block.linear(name, x, encoder.sizes.hidden, {.bias = true});
  if (encoder.electra) return block.activation(name + ".act", x, ActivationKind::gelu);
  return block.activation(name + ".act", x,
                          encoder.distilled ? ActivationKind::relu : ActivationKind::tanh);
}

// ElectraDiscriminatorPredictions: was this token replaced? Binary cross entropy keeps what a
// squared difference keeps: the logits and the labels as numbers.
TensorRef replaced_tokens(const Graph& graph, BlockBuilder& block, TensorRef x,
                          const Encoder& encoder) {
  const std::string name = "discriminator_predictions.dense";
  x = block.linear(name, x, encoder.sizes.hidden, {.bias = true});
  x = block.activation(name + ".act", x, encoder.activation);
  const TensorRef logits = block.linear(name + "_prediction", x, 1, {.bias = true});
  return block.loss(OperatorKind::squared_loss, {logits, shared_named(graph, "labels")}, "loss");
}

void add_encoder_head(Graph& graph, const Encoder& encoder) {
  BlockBuilder block(graph, "head");
  const TensorRef x = block.input({graph.batch, graph.sequence, encoder.sizes.hidden});
  const LinearOptions biased{.bias = true};
  TensorRef loss;
  switch (encoder.head) {
    case Head::masked_lm: loss = masked_lm(graph, block, x, encoder); break;
    case Head::pre_training: {
      if (encoder.electra) {
        loss = replaced_tokens(graph, block, x, encoder);
        break;
      }
      const TensorRef sentence = pooled(block, x, encoder);
      const TensorRef words = masked_lm(graph, block, x, encoder);
      const TensorRef logits = block.linear("cls.seq_relationship", sentence, 2, biased);
      const TensorRef next =
          block.loss(OperatorKind::classification_loss,
                     {logits, shared_named(graph, "next_sentence_label")}, "next_sentence_loss");
      loss = block.add("total_loss", words, next);
      break;
    }
    case Head::sequence_classification: {
      const TensorRef h =
          block.dropout("classifier.dropout", pooled(block, x, encoder), encoder.hidden_dropout);
      const bool own_head = encoder.positions_of_ids || encoder.electra;
      const std::string name = own_head ? "classifier.out_proj" : "classifier";
      const TensorRef logits = block.linear(name, h, encoder.labels, biased);
      loss = block.loss(OperatorKind::classification_loss, {logits, shared_named(graph, "labels")},
                        "loss");
      break;
    }
    case Head::token_classification: {
      const TensorRef h = block.dropout("classifier.dropout", x, encoder.hidden_dropout);
      const TensorRef logits = block.linear("classifier", h, encoder.labels, biased);
      loss = block.loss(OperatorKind::classification_loss, {logits, shared_named(graph, "labels")},
                        "loss");
      break;
    }
    case Head::question_answering: {
      const TensorRef logits = block.linear("qa_outputs", x, 2, biased);
      loss = block.loss(
          OperatorKind::span_loss,
          {logits, shared_named(graph, "start_positions"), shared_named(graph, "end_positions")},
          "loss");
      break;
    }
  }
  graph.segments.push_back({1, {block.finish(loss)}});
}

Graph finish_encoder(ConfigReader& config, const SampleShape& sample, const Encoder& encoder) {
  Graph graph = start_graph(config, encoder.sizes, sample);
  start_batch(graph, encoder);
  check_positions(config, graph, encoder.sizes.max_sequence, "max_position_embeddings");
  add_embed(graph, encoder);
  graph.segments.push_back({encoder.sizes.layers, {encoder_layer(graph, encoder)}});
  add_encoder_head(graph, encoder);
  return graph;
}

Encoder read_bert(ConfigReader& config, const SizeDefaults& defaults) {
  Encoder encoder;
  encoder.sizes = read_sizes(config, defaults);
  encoder.inner = config.whole({"intermediate_size"}, 3072, kWideLimits);
  encoder.types = config.whole({"type_vocab_size"}, 2, kVocabularyLimits);
  encoder.labels = labels_of(config);
  encoder.activation = config.activation({"hidden_act"}, "gelu");
  encoder.hidden_dropout = config.probability({"hidden_dropout_prob"}, 0.1);
  encoder.attention_dropout = config.probability({"attention_probs_dropout_prob"}, 0.1);
  encoder.head = head_of(config);
  return encoder;
}

constexpr SizeDefaults bert_defaults(std::int64_t vocabulary) {
  return {.vocabulary = vocabulary,
          .hidden = 768,
          .layers = 12,
          .heads = 12,
          .kv_heads = {},
          .head_dim = {},
          .max_sequence = 512,
          .tied = true};
}

}  // namespace

Graph build_bert(ConfigReader& config, const SampleShape& sample) {
  Encoder encoder = read_bert(config, bert_defaults(30522));
  encoder.root = "bert";
  return finish_encoder(config, sample, encoder);
}

Graph build_roberta(ConfigReader& config, const SampleShape& sample) {
  Encoder encoder = read_bert(config, bert_defaults(50265));
  encoder.root = "roberta";
  encoder.positions_of_ids = true;
  return finish_encoder(config, sample, encoder);
}

// Camembert and XLM-RoBERTa: RoBERTa's code under other names, with other defaults.
Graph build_xlm_roberta(ConfigReader& config, const SampleShape& sample) {
  Encoder encoder = read_bert(config, bert_defaults(30522));
  encoder.root = "roberta";
  encoder.positions_of_ids = true;
  return finish_encoder(config, sample, encoder);
}

Graph build_electra(ConfigReader& config, const SampleShape& sample) {
  SizeDefaults defaults = bert_defaults(30522);
  defaults.hidden = 256;
  defaults.heads = 4;
  Encoder encoder = read_bert(config, defaults);
  encoder.inner = config.whole({"intermediate_size"}, 1024, kWideLimits);
  encoder.embedding = config.whole({"embedding_size"}, 128, kHiddenLimits);
  encoder.root = "electra";
  encoder.electra = true;
  return finish_encoder(config, sample, encoder);
}

Graph build_distilbert(ConfigReader& config, const SampleShape& sample) {
  Encoder encoder;
  Sizes& sizes = encoder.sizes;
  sizes.vocabulary = config.whole({"vocab_size"}, 30522, kVocabularyLimits);
  sizes.hidden = config.whole({"dim", "hidden_size"}, 768, kHiddenLimits);
  sizes.layers = config.whole({"n_layers", "num_hidden_layers"}, 6, kLayerLimits);
  sizes.heads = config.whole({"n_heads", "num_attention_heads"}, 12, kHeadLimits);
  sizes.kv_heads = sizes.heads;
  sizes.head_dim = divided_heads(config, sizes.hidden, sizes.heads, "dim", "n_heads");
  sizes.max_sequence = config.whole({"max_position_embeddings"}, 512, kPositionLimits);
  sizes.tied = config.flag({"tie_word_embeddings"}, true);
  encoder.inner = config.whole({"hidden_dim"}, 3072, kWideLimits);
  encoder.labels = labels_of(config);
  encoder.activation = config.activation({"activation"}, "gelu");
  encoder.hidden_dropout = config.probability({"dropout"}, 0.1);
  encoder.attention_dropout = config.probability({"attention_dropout"}, 0.1);
  encoder.head = head_of(config);
  encoder.root = "distilbert";
  encoder.distilled = true;
  return finish_encoder(config, sample, encoder);
}

}  // namespace steelyard::model
