#include "model/class_head.h"

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/image_parts.h"

namespace steelyard::model {

namespace {

using Endings = std::span<const std::string_view>;

constexpr std::array<std::string_view, 3> kDecoder = {"ForCausalLM", "ForConditionalGeneration",
                                                      "ForPreTraining"};
constexpr std::array<std::string_view, 1> kBothStacks = {"ForConditionalGeneration"};
constexpr std::array<std::string_view, 2> kPictureText = {"ForConditionalGeneration",
                                                          "ForCausalLM"};
constexpr std::array<std::string_view, 2> kPictures = {"ForImageClassification",
                                                       "ForImageClassificationWithTeacher"};
constexpr std::array<std::string_view, 1> kDetector = {"ForObjectDetection"};

constexpr std::string_view kSequences = "ForSequenceClassification";
constexpr std::string_view kTokens = "ForTokenClassification";
constexpr std::string_view kAnswers = "ForQuestionAnswering";

OperatorKind end_of(const Graph& graph) {
  const Block& head = graph.segments.back().blocks.back();
  return head.operators.empty() ? OperatorKind::add : head.operators.back().kind;
}

bool is_decoder(const Graph& graph) {
  return end_of(graph) == OperatorKind::causal_lm_loss && graph.decoder_sequence == 0 &&
         graph.images == 0 && graph.image_height == 0;
}

// What the family's own end is called.
Endings own_endings(const Graph& graph) {
  if (is_decoder(graph)) return kDecoder;
  if (graph.images > 0) return kPictureText;
  if (graph.image_height == 0) return kBothStacks;
  if (end_of(graph) == OperatorKind::classification_loss) return kPictures;
  return kDetector;
}

// BART's: an encoder and a decoder whose last token is classified. T5's scales what the tied head
// reads, which its classifier does not.
bool ends_in_two_stacks(const Graph& graph) {
  if (is_decoder(graph) || graph.images > 0 || graph.image_height > 0) return false;
  if (graph.audio_samples > 0 || graph.decoder_sequence == 0) return false;
  const Block& head = graph.segments.back().blocks.back();
  return std::none_of(head.operators.begin(), head.operators.end(),
                      [](const Operator& op) { return op.kind == OperatorKind::scale; });
}

// "For" in the middle of a word is no task: "Transformer".
std::string_view task_of(std::string_view name) {
  for (std::size_t at = name.find("For"); at != std::string_view::npos;
       at = name.find("For", at + 1)) {
    const std::size_t next = at + 3;
    if (next < name.size() && name[next] >= 'A' && name[next] <= 'Z') return name.substr(at);
  }
  return name.ends_with("DoubleHeadsModel") ? name : std::string_view();
}

// A tensor of the batch that the head reads, in the place of one of that name.
TensorRef share(Graph& graph, const char* name, Shape shape) {
  const auto named = [&](const TensorInfo& info) { return info.name == name; };
  std::erase_if(graph.batch_tensors, named);
  auto at = std::find_if(graph.shared.begin(), graph.shared.end(), named);
  if (at == graph.shared.end()) at = graph.shared.insert(at, {name, {}, ElementKind::token_ids});
  at->shape = std::move(shape);
  graph.batch_tensors.push_back(*at);
  return {true, static_cast<std::int32_t>(at - graph.shared.begin())};
}

class Heading {
 public:
  Heading(Graph& graph, Block& head) : graph_(graph), head_(head) {}

  // Takes the output projection and what is behind it away.
  [[nodiscard]] bool open();
  void classify(std::string_view task, std::int64_t labels, double dropout);
  void classify_last_token(std::int64_t labels, double dropout);

 private:
  TensorRef add(OperatorKind kind, const std::string& name, std::vector<TensorRef> inputs,
                Shape shape);
  TensorRef linear(const std::string& name, TensorRef in, std::int64_t outputs, bool bias);
  TensorRef dropped(const std::string& name, TensorRef in, double probability);
  [[nodiscard]] const Shape& shape_of(TensorRef ref) const {
    return head_.tensors[static_cast<std::size_t>(ref.index)].shape;
  }
  [[nodiscard]] std::string classifier() const;

  Graph& graph_;
  Block& head_;
  TensorRef hidden_;
  std::int64_t width_ = 0;
};

bool Heading::open() {
  std::size_t at = head_.operators.size();
  while (at > 0 && head_.operators[at - 1].kind != OperatorKind::linear) --at;
  if (at == 0 || head_.operators[at - 1].inputs[0].shared) return false;
  Operator& projection = head_.operators[at - 1];
  hidden_ = projection.inputs[0];
  width_ = head_.tensors[static_cast<std::size_t>(hidden_.index)].shape.back();
  const std::vector<std::int32_t> gone = projection.weights;
  head_.operators.erase(head_.operators.begin() + static_cast<std::ptrdiff_t>(at - 1),
                        head_.operators.end());
  std::vector<Weight> kept;
  std::vector<std::int32_t> moved(head_.weights.size(), -1);
  for (std::size_t i = 0; i < head_.weights.size(); ++i) {
    const auto index = static_cast<std::int32_t>(i);
    if (std::find(gone.begin(), gone.end(), index) != gone.end()) continue;
    moved[i] = static_cast<std::int32_t>(kept.size());
    kept.push_back(std::move(head_.weights[i]));
  }
  head_.weights = std::move(kept);
  for (Operator& op : head_.operators) {
    for (std::int32_t& weight : op.weights) {
      if (weight >= 0) weight = moved[static_cast<std::size_t>(weight)];
    }
  }
  return true;
}

TensorRef Heading::add(OperatorKind kind, const std::string& name, std::vector<TensorRef> inputs,
                       Shape shape) {
  head_.tensors.push_back({name, std::move(shape)});
  Operator op;
  op.kind = kind;
  op.name = name;
  op.inputs = std::move(inputs);
  op.outputs = {{false, static_cast<std::int32_t>(head_.tensors.size()) - 1}};
  head_.operators.push_back(std::move(op));
  head_.output = head_.operators.back().outputs.front();
  return head_.output;
}

TensorRef Heading::linear(const std::string& name, TensorRef in, std::int64_t outputs, bool bias) {
  Shape result = shape_of(in);
  result.back() = outputs;
  const TensorRef out = add(OperatorKind::linear, name, {in}, std::move(result));
  const auto weight = [&](const char* part, Shape shape, WeightRole role) {
    Weight one;
    one.name = name + part;
    one.shape = std::move(shape);
    one.role = role;
    head_.weights.push_back(std::move(one));
    head_.operators.back().weights.push_back(static_cast<std::int32_t>(head_.weights.size()) - 1);
  };
  weight(".weight", {outputs, width_}, WeightRole::matrix);
  if (bias) weight(".bias", {outputs}, WeightRole::bias);
  return out;
}

TensorRef Heading::dropped(const std::string& name, TensorRef in, double probability) {
  if (probability <= 0.0) return in;
  const TensorRef out = add(OperatorKind::dropout, name, {in}, shape_of(in));
  head_.operators.back().probability = probability;
  return out;
}

// The newer classes call it score, those whose model is no `model` classifier.
std::string Heading::classifier() const {
  for (const Segment& segment : graph_.segments) {
    for (const Block& block : segment.blocks) {
      if (block.name.starts_with("model.")) return "score";
    }
  }
  return "classifier";
}

void Heading::classify(std::string_view task, std::int64_t labels, double dropout) {
  std::erase_if(graph_.batch_tensors, [](const TensorInfo& info) { return info.name == "labels"; });
  if (task == kAnswers) {
    const TensorRef logits = linear("qa_outputs", hidden_, 2, true);
    const TensorRef first = share(graph_, "start_positions", {graph_.batch});
    const TensorRef last = share(graph_, "end_positions", {graph_.batch});
    (void)add(OperatorKind::span_loss, "loss", {logits, first, last}, {});
    return;
  }
  if (task == kTokens) {
    const TensorRef x = dropped(classifier() + ".dropout", hidden_, dropout);
    const TensorRef logits = linear(classifier(), x, labels, true);
    const TensorRef of_tokens = share(graph_, "labels", {graph_.batch, graph_.sequence});
    (void)add(OperatorKind::classification_loss, "loss", {logits, of_tokens}, {});
    return;
  }
  const TensorRef all = linear("score", hidden_, labels, false);
  // logits[arange(batch), last_non_pad_token]
  const TensorRef pooled =
      add(OperatorKind::first_token, "last_token", {all}, {graph_.batch, labels});
  const TensorRef of_samples = share(graph_, "labels", {graph_.batch});
  (void)add(labels == 1 ? OperatorKind::squared_loss : OperatorKind::classification_loss, "loss",
            {pooled, of_samples}, {});
}

// modeling_bart.py: BartClassificationHead over the state of the last <eos>.
void Heading::classify_last_token(std::int64_t labels, double dropout) {
  const std::string name = "classification_head";
  TensorRef x = add(OperatorKind::first_token, "eos", {hidden_}, {graph_.batch, width_});
  x = linear(name + ".dense", dropped(name + ".dropout", x, dropout), width_, true);
  x = add(OperatorKind::activation, name + ".tanh", {x}, shape_of(x));
  head_.operators.back().activation = ActivationKind::tanh;
  x = linear(name + ".out_proj", dropped(name + ".dropout_out", x, dropout), labels, true);
  // The decoder reads the ids, turned by one, as it reads the labels of a translation: those stay.
  const TensorRef of_samples = share(graph_, "class_labels", {graph_.batch});
  (void)add(labels == 1 ? OperatorKind::squared_loss : OperatorKind::classification_loss, "loss",
            {x, of_samples}, {});
}

std::optional<std::string> class_of(ConfigReader& config) {
  const std::vector<std::string> classes = config.text_list({"architectures"});
  if (classes.empty()) return std::nullopt;
  return classes.front();
}

Error not_built(const ConfigReader& config, const Graph& graph, const std::string& name) {
  std::string accepted;
  for (const std::string_view ending : own_endings(graph)) {
    accepted += (accepted.empty() ? "..." : ", ...") + std::string(ending);
  }
  if (ends_in_two_stacks(graph)) accepted += ", ..." + std::string(kSequences);
  if (is_decoder(graph)) {
    for (const std::string_view ending : {kSequences, kTokens, kAnswers}) {
      accepted += ", ..." + std::string(ending);
    }
  }
  return {.code = ErrorCode::not_supported,
          .subject = config.subject_of("architectures"),
          .found = "\"" + name + "\"",
          .accepted = "a class of this model_type that is built: " + accepted,
          .hint =
              "the head of that class is not built in this version; model.set = { "
              "architectures = [...] } names another class"};
}

}  // namespace

Result<Graph> with_class_head(Graph graph, ConfigReader& config) {
  const std::optional<std::string> name = class_of(config);
  if (!name) return graph;
  const std::string_view task = task_of(*name);
  const Endings own = own_endings(graph);
  if (task.empty() || std::find(own.begin(), own.end(), task) != own.end()) return graph;
  const bool both = task == kSequences && ends_in_two_stacks(graph);
  const bool built = task == kSequences || task == kTokens || task == kAnswers;
  if (!both && (!built || !is_decoder(graph))) return fail(not_built(config, graph, *name));
  Heading head(graph, graph.segments.back().blocks.back());
  if (!head.open()) return fail(not_built(config, graph, *name));
  constexpr std::int64_t kLabelsOfBart = 3;
  const bool counted = config.has("num_labels") || config.has("id2label");
  const std::int64_t labels = both && !counted ? kLabelsOfBart : labels_of(config);
  // classifier_dropout, or the family's own, or 0.1.
  const double dropout =
      config.probability({"classifier_dropout", "hidden_dropout", "hidden_dropout_prob"}, 0.1);
  if (both) {
    head.classify_last_token(labels, config.probability({"classifier_dropout"}, 0.0));
  } else {
    head.classify(task, labels, dropout);
  }
  if (config.first_error()) return fail(*config.first_error());
  return graph;
}

}  // namespace steelyard::model
