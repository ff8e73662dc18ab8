#include "model/stored_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <string_view>
#include <vector>

#include "model/onnx_value.h"

namespace steelyard::model {

namespace {

using facts::StoredTensor;
using facts::StoredTensors;

constexpr std::size_t kNamed = 3;  // tensors in a message
// Heads that a configuration's class does not have are small (BERT's next-sentence pair).
constexpr double kSmallShare = 0.01;

Error differs(const Graph& graph, const StoredTensors& stored, std::string found,
              std::string accepted, std::string hint) {
  return {.code = ErrorCode::impossible_combination,
          .subject = fmt::format("{} and {}'s config.json", stored.file, graph.model_type),
          .found = std::move(found),
          .accepted = std::move(accepted),
          .hint = std::move(hint)};
}

// "a, b, c and 17 more".
std::string first_of(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), kNamed); ++i) {
    text += (i > 0 ? ", " : "") + names[i];
  }
  if (names.size() > kNamed) text += fmt::format(" and {} more", names.size() - kNamed);
  return text;
}

// transformers loads files of the model without its head too: their names lack the first part.
std::string without_base(const std::string& name) {
  const std::size_t dot = name.find('.');
  return dot == std::string::npos ? name : name.substr(dot + 1);
}

// "cls.predictions.decoder.bias" -> "cls.predictions.bias": a parameter that two modules have is
// stored once, under the name of the outer one.
std::string of_outer_module(const std::string& name) {
  const std::size_t last = name.rfind('.');
  if (last == std::string::npos || last == 0) return name;
  const std::size_t before = name.rfind('.', last - 1);
  return before == std::string::npos ? name : name.substr(0, before) + name.substr(last);
}

// The embedding that encoder and decoder share is stored under a name of its own: "shared.weight"
// in T5, "model.shared.weight" in BART.
std::string of_both_stacks(const std::string& name) {
  constexpr std::string_view kOwn = "encoder.embed_tokens.weight";
  return name.ends_with(kOwn) ? name.substr(0, name.size() - kOwn.size()) + "shared.weight" : name;
}

// transformers 5 writes models of pictures and text with the text's part as a model of its own and
// the towers without the module around them: "language_model.model.layers" for
// "model.language_model.layers", "vision_tower.encoder" for "vision_tower.vision_model.encoder".
std::string of_parts(std::string name) {
  constexpr std::string_view kText = "model.language_model.", kTower = "vision_tower.vision_model.";
  if (name.starts_with("lm_head.")) return "language_model." + name;
  if (name.starts_with(kText)) return "language_model.model." + name.substr(kText.size());
  const std::size_t tower = name.find(kTower);
  if (tower != std::string::npos) name.replace(tower, kTower.size(), "vision_tower.");
  return name;
}

// What a batch norm has run over.
bool is_statistic(const StoredTensor& tensor) {
  return tensor.name.ends_with(".running_mean") || tensor.name.ends_with(".running_var") ||
         tensor.name.ends_with(".num_batches_tracked");
}

bool is_mask(const StoredTensor& tensor) {  // GPT-2's attn.bias: [1,1,n,n]
  return tensor.shape.size() == 4 && tensor.shape[0] == 1 && tensor.shape[1] == 1;
}

bool trains(const StoredTensor& tensor) {
  static constexpr std::array<std::string_view, 4> kTrained = {"F32", "F16", "BF16", "F64"};
  return std::find(kTrained.begin(), kTrained.end(), tensor.dtype) != kTrained.end();
}

}  // namespace

namespace {

// visit(block, what the names of the block begin with in the state dict)
template <class Visit>
void for_each_block(const Graph& graph, const Visit& visit) {
  std::map<std::string, std::int64_t> layers;  // of a stage, where there are several
  for (const Segment& segment : graph.segments) {
    for (std::int64_t i = 0; i < segment.repeat; ++i) {
      for (const Block& block : segment.blocks) {
        const bool end = block.name == "embed" || block.name == "middle" || block.name == "head";
        visit(block, end ? "" : fmt::format("{}.{}.", block.name, layers[block.name]++));
      }
    }
  }
}

// Of the state dict: visit(name, weight).
template <class Visit>
void for_each_weight(const Graph& graph, const Visit& visit) {
  for_each_block(graph, [&](const Block& block, const std::string& prefix) {
    for (const Weight& weight : block.weights) {
      if (weight.tied_to.empty()) visit(prefix + weight.name, weight);
    }
  });
}

using Names = std::set<std::string, std::less<>>;

// What lies beside the weights and is stored with them: SD3's table of positions.
Names buffers_of(const Graph& graph) {
  Names names;
  for_each_block(graph, [&](const Block& block, const std::string& prefix) {
    for (const TensorInfo& buffer : block.buffers) names.insert(prefix + buffer.name);
  });
  return names;
}

}  // namespace

std::map<std::string, Shape> state_dict_of(const Graph& graph) {
  std::map<std::string, Shape> weights;
  for_each_weight(graph, [&](std::string name, const Weight& weight) {
    weights.emplace(std::move(name), weight.shape);
  });
  return weights;
}

namespace {

// Sines that are computed when the model is made, and left out of its files (Marian's
// _keys_to_ignore_on_save).
Names computed_weights(const Graph& graph) {
  Names names;
  for_each_weight(graph, [&](std::string name, const Weight& weight) {
    if (!weight.trains) names.insert(std::move(name));
  });
  return names;
}

struct Comparison {
  std::vector<std::string> missing, shaped, typed;
  Names used;
  std::int64_t parameters = 0;  // of the graph
};

Comparison compared(const Graph& graph, const StoredTensors& stored) {
  Comparison result;
  std::map<std::string, const StoredTensor*> held;
  for (const StoredTensor& tensor : stored.tensors) held.emplace(tensor.name, &tensor);
  const std::map<std::string, Shape> wanted = state_dict_of(graph);
  const Names computed = computed_weights(graph);
  const bool whole = std::any_of(wanted.begin(), wanted.end(),
                                 [&](const auto& weight) { return held.contains(weight.first); });
  for (const auto& [name, shape] : wanted) {
    result.parameters = checked_add(result.parameters, elements(shape));
    auto found = held.find(whole ? name : without_base(name));
    if (found == held.end()) found = held.find(of_outer_module(name));
    if (found == held.end()) found = held.find(of_both_stacks(name));
    if (found == held.end()) found = held.find(of_parts(name));
    if (found == held.end() && computed.contains(name)) continue;
    if (found == held.end()) {
      result.missing.push_back(name);
      continue;
    }
    const StoredTensor& tensor = *found->second;
    result.used.insert(tensor.name);
    if (tensor.shape != shape) {
      result.shaped.push_back(
          fmt::format("{} {} (file: {})", name, text_of(shape), text_of(tensor.shape)));
    }
    if (!trains(tensor)) result.typed.push_back(fmt::format("{} {}", tensor.name, tensor.dtype));
  }
  return result;
}

// A classifier is put on a model that was trained without it: transformers makes its weights anew
// ("newly initialized") and so does a fine-tuning that starts from the file.
bool is_new_head(const Graph& graph, const std::vector<std::string>& missing) {
  const Block& head = graph.segments.back().blocks.back();
  if (head.operators.empty() || graph.segments.size() < 2) return false;
  const OperatorKind end = head.operators.back().kind;
  if (end != OperatorKind::classification_loss && end != OperatorKind::span_loss &&
      end != OperatorKind::squared_loss) {
    return false;
  }
  return std::all_of(missing.begin(), missing.end(), [&](const std::string& name) {
    return std::any_of(head.weights.begin(), head.weights.end(),
                       [&](const Weight& weight) { return weight.name == name; });
  });
}

}  // namespace

std::vector<std::string> newly_made(const Graph& graph, const StoredTensors& stored) {
  return compared(graph, stored).missing;
}

Result<void> check_stored(const Graph& graph, const StoredTensors& stored) {
  const Comparison result = compared(graph, stored);
  const auto& [missing, shaped, typed, used, parameters] = result;
  if (!typed.empty()) {
    return fail(differs(graph, stored, "weights of a type that does not train: " + first_of(typed),
                        "F32, F16, BF16 or F64", "name the checkpoint before its quantization"));
  }
  if (!shaped.empty()) {
    return fail(differs(graph, stored, "other shapes: " + first_of(shaped), "the same shapes",
                        "the configuration is not the one these weights were made with"));
  }
  if (!missing.empty() && !is_new_head(graph, missing)) {
    return fail(differs(graph, stored, "weights that the file lacks: " + first_of(missing),
                        "a tensor for every weight of the configuration's model",
                        "do \"architectures\" and the sizes in config.json fit the file?"));
  }
  std::vector<std::string> extra;
  std::int64_t elements_of_extra = 0;
  const Names buffers = buffers_of(graph);
  for (const StoredTensor& tensor : stored.tensors) {
    if (used.contains(tensor.name) || buffers.contains(tensor.name) || !trains(tensor)) continue;
    if (is_mask(tensor) || is_statistic(tensor)) continue;
    // A tied head may lie in the file once more.
    const bool copy = graph.vocabulary > 0 && tensor.shape == Shape{graph.vocabulary, graph.hidden};
    if (copy) continue;
    extra.push_back(fmt::format("{} {}", tensor.name, text_of(tensor.shape)));
    elements_of_extra = checked_add(elements_of_extra, elements(tensor.shape));
  }
  const double share = static_cast<double>(elements_of_extra) / static_cast<double>(parameters);
  if (share <= kSmallShare) return {};
  return fail(differs(graph, stored, "tensors that the model does not have: " + first_of(extra),
                      "no more than small heads and buffers",
                      "are num_hidden_layers and \"architectures\" those of the file?"));
}

}  // namespace steelyard::model
