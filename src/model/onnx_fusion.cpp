// Exporters write out what older operator sets have no operator for. Training runs the one kernel
// that the model's code called, which saves less; so what is surely one of them becomes one again.
// Sources: torch/onnx/symbolic_opset9.py (gelu, silu, group_norm, layer_norm of PyTorch 2.6),
// symbolic_opset14.py (scaled_dot_product_attention).
#include <fmt/format.h>

#include <cmath>
#include <optional>
#include <unordered_map>
#include <utility>

#include "model/onnx_lowering.h"

namespace steelyard::model {

namespace {

using facts::OnnxNode;
using facts::OnnxTensor;

class Fusion {
 public:
  Fusion(std::vector<OnnxNode>& nodes, const facts::OnnxGraph& graph);
  void run();

 private:
  [[nodiscard]] OnnxNode* maker(const std::string& value, std::string_view type) const;
  // The only reader of a value, when it is of that type.
  [[nodiscard]] OnnxNode* only_reader(const OnnxNode& node, std::string_view type);
  [[nodiscard]] std::optional<double> number(const std::string& value) const;
  // The other operand of a node with two.
  [[nodiscard]] static const std::string* other(const OnnxNode& node, const std::string& value);
  [[nodiscard]] bool scales(const OnnxNode& node, const std::string& value, double factor) const;
  void replace(const std::vector<OnnxNode*>& parts, OnnxNode& last, const char* type,
               std::vector<std::string> inputs);
  void gelu(OnnxNode& erf);
  void tanh_gelu(OnnxNode& tanh);
  void silu(OnnxNode& sigmoid);
  void layer_norm(OnnxNode& mean);
  [[nodiscard]] std::int64_t groups_of(const std::string& target) const;
  void group_norm(OnnxNode& instance);
  [[nodiscard]] OnnxNode* scaled_by_root(const std::string& value, std::string& input,
                                         std::string& root) const;
  [[nodiscard]] std::string untransposed(const std::string& value, std::vector<OnnxNode*>& parts);
  void attention(OnnxNode& softmax);

  std::vector<OnnxNode>& nodes_;
  std::unordered_map<std::string, std::size_t> made_by_;
  std::unordered_map<std::string, std::vector<std::size_t>> read_by_;
  std::unordered_map<std::string, double> numbers_;  // values of a single element
  std::vector<bool> gone_;
};

Fusion::Fusion(std::vector<OnnxNode>& nodes, const facts::OnnxGraph& graph)
    : nodes_(nodes), gone_(nodes.size(), false) {
  const auto note = [this](const std::string& name, const OnnxTensor& tensor) {
    if (tensor.reals && tensor.reals->size() == 1) numbers_[name] = tensor.reals->front();
    if (tensor.wholes && tensor.wholes->size() == 1) {
      numbers_[name] = static_cast<double>(tensor.wholes->front());
    }
  };
  for (const OnnxTensor& tensor : graph.initializers) note(tensor.name, tensor);
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    for (const std::string& input : nodes[i].inputs) read_by_[input].push_back(i);
    for (const std::string& output : nodes[i].outputs) made_by_[output] = i;
    if (nodes[i].op_type != "Constant" || nodes[i].outputs.empty()) continue;
    for (const facts::OnnxAttribute& attribute : nodes[i].attributes) {
      if (attribute.tensor != nullptr) note(nodes[i].outputs[0], *attribute.tensor);
      if (attribute.real) numbers_[nodes[i].outputs[0]] = *attribute.real;
      if (attribute.whole) numbers_[nodes[i].outputs[0]] = static_cast<double>(*attribute.whole);
      if (attribute.wholes.size() == 1) {
        numbers_[nodes[i].outputs[0]] = static_cast<double>(attribute.wholes.front());
      }
    }
  }
  // A graph's output is read from outside.
  for (const facts::OnnxValueInfo& output : graph.outputs)
    read_by_[output.name].push_back(nodes.size());
}

OnnxNode* Fusion::maker(const std::string& value, std::string_view type) const {
  const auto found = made_by_.find(value);
  if (found == made_by_.end() || gone_[found->second]) return nullptr;
  OnnxNode& node = nodes_[found->second];
  return node.op_type == type ? &node : nullptr;
}

OnnxNode* Fusion::only_reader(const OnnxNode& node, std::string_view type) {
  if (node.outputs.empty()) return nullptr;
  const auto found = read_by_.find(node.outputs[0]);
  if (found == read_by_.end()) return nullptr;
  std::optional<std::size_t> only;
  for (const std::size_t reader : found->second) {  // it may read the value twice
    const bool is_node = reader < nodes_.size();    // else the graph's outputs
    const bool type_alone = is_node && nodes_[reader].op_type == "CastLike" &&
                            nodes_[reader].inputs[0] != node.outputs[0];
    if (type_alone) continue;
    if (only.value_or(reader) != reader) return nullptr;
    only = reader;
  }
  if (!only) return nullptr;
  const std::size_t index = *only;
  if (index >= nodes_.size() || gone_[index]) return nullptr;
  return nodes_[index].op_type == type ? &nodes_[index] : nullptr;
}

std::optional<double> Fusion::number(const std::string& value) const {
  const auto found = numbers_.find(value);
  return found == numbers_.end() ? std::nullopt : std::optional(found->second);
}

const std::string* Fusion::other(const OnnxNode& node, const std::string& value) {
  if (node.inputs.size() != 2) return nullptr;
  if (node.inputs[0] == value) return &node.inputs[1];
  return node.inputs[1] == value ? &node.inputs[0] : nullptr;
}

// value * factor, or value / (1 / factor).
bool Fusion::scales(const OnnxNode& node, const std::string& value, double factor) const {
  const std::string* constant = other(node, value);
  const auto by = constant != nullptr ? number(*constant) : std::nullopt;
  if (!by) return false;
  const double found = node.op_type == "Mul" ? *by : node.op_type == "Div" ? 1.0 / *by : 0.0;
  constexpr double kSlack = 1e-3;  // constants of 16-bit models
  return std::abs(found - factor) < kSlack;
}

void Fusion::replace(const std::vector<OnnxNode*>& parts, OnnxNode& last, const char* type,
                     std::vector<std::string> inputs) {
  for (const OnnxNode* part : parts) {
    if (part != nullptr) gone_[static_cast<std::size_t>(part - nodes_.data())] = true;
  }
  last.op_type = type;
  last.inputs = std::move(inputs);
  last.attributes.clear();
}

// x * 0.5 * (1 + erf(x / sqrt(2))), the half in any place.
void Fusion::gelu(OnnxNode& erf) {
  OnnxNode* scaled = maker(erf.inputs[0], "Div");
  if (scaled == nullptr) scaled = maker(erf.inputs[0], "Mul");
  if (scaled == nullptr || scaled->inputs.size() != 2) return;
  const std::string x = number(scaled->inputs[1]) ? scaled->inputs[0] : scaled->inputs[1];
  if (!scales(*scaled, x, std::sqrt(0.5))) return;
  OnnxNode* sum = only_reader(erf, "Add");
  if (sum == nullptr) return;
  const std::string* one = other(*sum, erf.outputs[0]);
  if (one == nullptr || number(*one).value_or(0.0) != 1.0) return;
  OnnxNode* product = only_reader(*sum, "Mul");
  if (product == nullptr) return;
  const std::string* factor = other(*product, sum->outputs[0]);
  if (factor == nullptr) return;
  if (*factor == x) {
    OnnxNode* half = only_reader(*product, "Mul");
    if (half == nullptr || !scales(*half, product->outputs[0], 0.5)) return;
    return replace({scaled, &erf, sum, product}, *half, "Gelu", {x});
  }
  if (scales(*product, sum->outputs[0], 0.5)) {  // x * (0.5 * (1 + erf))
    OnnxNode* last = only_reader(*product, "Mul");
    const std::string* by = last != nullptr ? other(*last, product->outputs[0]) : nullptr;
    if (by == nullptr || *by != x) return;
    return replace({scaled, &erf, sum, product}, *last, "Gelu", {x});
  }
  OnnxNode* half = maker(*factor, "Mul");
  if (half == nullptr || !scales(*half, x, 0.5) || only_reader(*half, "Mul") != product) return;
  replace({scaled, &erf, sum, half}, *product, "Gelu", {x});
}

// half * (x * (1 + tanh(beta * (x + kappa * (x * (x * x)))))): F.gelu's approximation. Code of the
// model's own (transformers' NewGELUActivation) has a power in place of the products.
void Fusion::tanh_gelu(OnnxNode& tanh) {
  OnnxNode* inner = maker(tanh.inputs[0], "Mul");
  if (inner == nullptr || inner->inputs.size() != 2) return;
  OnnxNode* sum = maker(inner->inputs[number(inner->inputs[0]) ? 1 : 0], "Add");
  if (sum == nullptr || sum->inputs.size() != 2) return;
  const std::string x = sum->inputs[0];
  OnnxNode* scaled = maker(sum->inputs[1], "Mul");
  if (scaled == nullptr || scaled->inputs.size() != 2) return;
  OnnxNode* cube = maker(scaled->inputs[number(scaled->inputs[0]) ? 1 : 0], "Mul");
  const std::string* square = cube != nullptr ? other(*cube, x) : nullptr;
  OnnxNode* squared = square != nullptr ? maker(*square, "Mul") : nullptr;
  if (squared == nullptr || squared->inputs != std::vector<std::string>{x, x}) return;
  OnnxNode* one = only_reader(tanh, "Add");
  OnnxNode* product = one != nullptr ? only_reader(*one, "Mul") : nullptr;
  const std::string* by = product != nullptr ? other(*product, one->outputs[0]) : nullptr;
  OnnxNode* half = by != nullptr && *by == x ? only_reader(*product, "Mul") : nullptr;
  if (half == nullptr || !scales(*half, product->outputs[0], 0.5)) return;
  replace({inner, sum, scaled, cube, squared, &tanh, one, product}, *half, "Gelu", {x});
}

void Fusion::silu(OnnxNode& sigmoid) {
  OnnxNode* product = only_reader(sigmoid, "Mul");
  if (product == nullptr) return;
  const std::string* x = other(*product, sigmoid.outputs[0]);
  if (x == nullptr || *x != sigmoid.inputs[0]) return;
  replace({&sigmoid}, *product, "Swish", {std::string(*x)});
}

// d = x - mean(x); d / sqrt(mean(d ** 2) + eps) * weight + bias
void Fusion::layer_norm(OnnxNode& mean) {
  OnnxNode* centred = only_reader(mean, "Sub");
  if (centred == nullptr || centred->inputs[0] != mean.inputs[0]) return;
  const auto readers = read_by_.find(centred->outputs[0]);
  if (readers == read_by_.end() || readers->second.size() != 2) return;
  OnnxNode* square = nullptr;
  OnnxNode* quotient = nullptr;
  for (const std::size_t reader : readers->second) {
    if (reader >= nodes_.size()) return;
    if (nodes_[reader].op_type == "Pow") square = &nodes_[reader];
    if (nodes_[reader].op_type == "Div") quotient = &nodes_[reader];
  }
  if (square == nullptr || quotient == nullptr || square->inputs.size() != 2) return;
  if (number(square->inputs[1]).value_or(0.0) != 2.0) return;
  OnnxNode* variance = only_reader(*square, "ReduceMean");
  OnnxNode* sum = variance != nullptr ? only_reader(*variance, "Add") : nullptr;
  OnnxNode* root = sum != nullptr ? only_reader(*sum, "Sqrt") : nullptr;
  if (root == nullptr || only_reader(*root, "Div") != quotient) return;
  if (quotient->inputs[0] != centred->outputs[0]) return;
  OnnxNode* scaled = only_reader(*quotient, "Mul");
  OnnxNode* shifted = scaled != nullptr ? only_reader(*scaled, "Add") : nullptr;
  if (shifted == nullptr) return;
  const std::string* weight = other(*scaled, quotient->outputs[0]);
  const std::string* bias = other(*shifted, scaled->outputs[0]);
  const bool last_axis = [&] {
    for (const facts::OnnxAttribute& attribute : mean.attributes) {
      if (attribute.name == "axes") return attribute.wholes == std::vector<std::int64_t>{-1};
    }
    return mean.inputs.size() == 2 && number(mean.inputs[1]).value_or(0.0) == -1.0;
  }();
  if (weight == nullptr || bias == nullptr || !last_axis) return;
  if (made_by_.contains(*weight) || made_by_.contains(*bias)) return;  // stored ones alone
  replace({&mean, centred, square, variance, sum, root, quotient, scaled}, *shifted,
          "LayerNormalization", {mean.inputs[0], std::string(*weight), std::string(*bias)});
}

// Of [0, groups, -1], a constant or joined of constants (onnxscript's torch_lib). 0: of another
// form.
std::int64_t Fusion::groups_of(const std::string& target) const {
  constexpr std::size_t kParts = 3;
  if (const OnnxNode* stored = maker(target, "Constant")) {
    if (stored->attributes.empty() || stored->attributes.front().tensor == nullptr) return 0;
    const auto& sizes = stored->attributes.front().tensor->wholes;
    return sizes && sizes->size() == kParts ? (*sizes)[1] : 0;
  }
  const OnnxNode* joined = maker(target, "Concat");
  if (joined == nullptr || joined->inputs.size() != kParts) return 0;
  const OnnxNode* shaped = maker(joined->inputs[1], "Reshape");
  const auto count = number(shaped != nullptr ? shaped->inputs[0] : joined->inputs[1]);
  return count ? static_cast<std::int64_t>(*count) : 0;
}

// [B,groups,-1], normalised there, back to [B,C,h,w], then a weight and a bias for each channel.
void Fusion::group_norm(OnnxNode& instance) {
  OnnxNode* apart = maker(instance.inputs[0], "Reshape");
  OnnxNode* back = only_reader(instance, "Reshape");
  if (apart == nullptr || back == nullptr || apart->inputs.size() != 2) return;
  OnnxNode* scaled = only_reader(*back, "Mul");
  OnnxNode* shifted = scaled != nullptr ? only_reader(*scaled, "Add") : nullptr;
  if (shifted == nullptr) return;
  const std::int64_t groups = groups_of(apart->inputs[1]);
  // [C,1,1], from [C] by an Unsqueeze.
  std::vector<OnnxNode*> parts = {apart, &instance, back, scaled};
  const auto stored = [&](const std::string* value) -> std::string {
    if (value == nullptr) return "";
    OnnxNode* alike = maker(*value, "CastLike");
    parts.push_back(alike);
    const std::string& wide = alike != nullptr ? alike->inputs[0] : *value;
    const OnnxNode* raised = maker(wide, "Unsqueeze");
    const std::string& name = raised != nullptr ? raised->inputs[0] : wide;
    return made_by_.contains(name) ? "" : name;
  };
  const std::string weight = stored(other(*scaled, back->outputs[0]));
  const std::string bias = stored(other(*shifted, scaled->outputs[0]));
  if (weight.empty() || bias.empty() || groups < 1) return;
  replace(parts, *shifted, "GroupNormalization", {apart->inputs[0], weight, bias});
  facts::OnnxAttribute count;
  count.name = "num_groups";
  count.whole = groups;
  shifted->attributes.push_back(std::move(count));
}

// value = input * sqrt(scale): both as torch's exporter writes them for
// F.scaled_dot_product_attention, which the model's own code would not (it scales the scores).
// `root` says of what the root is.
OnnxNode* Fusion::scaled_by_root(const std::string& value, std::string& input,
                                 std::string& root) const {
  OnnxNode* product = maker(value, "Mul");
  if (product == nullptr || product->inputs.size() != 2) return nullptr;
  input = product->inputs[0];
  const std::string& factor = product->inputs[1];
  if (const auto known = number(factor)) {
    root = fmt::format("{}", *known);
    return product;
  }
  const OnnxNode* of = maker(factor, "Sqrt");
  if (of == nullptr) return nullptr;
  root = of->inputs[0];
  return product;
}

// What was transposed in its last two dimensions, by way of three dimensions perhaps.
std::string Fusion::untransposed(const std::string& value, std::vector<OnnxNode*>& parts) {
  const auto order_of = [](const OnnxNode& node) {
    for (const facts::OnnxAttribute& attribute : node.attributes) {
      if (attribute.name == "perm") return attribute.wholes;
    }
    return std::vector<std::int64_t>();
  };
  const OnnxNode* wide = maker(value, "Reshape");
  OnnxNode* turned = maker(wide != nullptr ? wide->inputs[0] : value, "Transpose");
  if (turned == nullptr || only_reader(*turned, wide != nullptr ? "Reshape" : "Mul") == nullptr) {
    return "";
  }
  const std::vector<std::int64_t> order = order_of(*turned);
  if (wide == nullptr) {
    if (order == std::vector<std::int64_t>{0, 2, 3, 1}) {  // one that an exporter joined of two
      for (facts::OnnxAttribute& attribute : turned->attributes) {
        if (attribute.name == "perm") attribute.wholes = {0, 2, 1, 3};
      }
      return turned->outputs[0];
    }
    if (order != std::vector<std::int64_t>{0, 1, 3, 2}) return "";
    parts.push_back(turned);
    return turned->inputs[0];
  }
  const OnnxNode* narrow = maker(turned->inputs[0], "Reshape");
  if (narrow == nullptr || order != std::vector<std::int64_t>{0, 2, 1}) return "";
  return narrow->inputs[0];
}

// softmax(q * sqrt(s) @ (k^T * sqrt(s)) + mask) @ v (torch/onnx/symbolic_opset14.py,
// scaled_dot_product_attention; onnxscript's torch_lib alike): one kernel, which keeps no scores.
void Fusion::attention(OnnxNode& softmax) {
  OnnxNode* mask = maker(softmax.inputs[0], "Add");
  OnnxNode* scores = maker(mask != nullptr ? mask->inputs[0] : softmax.inputs[0], "MatMul");
  if (scores == nullptr || only_reader(*scores, mask != nullptr ? "Add" : "Softmax") == nullptr) {
    return;
  }
  std::string query, key, root_of_query, root_of_key;
  OnnxNode* queries = scaled_by_root(scores->inputs[0], query, root_of_query);
  OnnxNode* keys = scaled_by_root(scores->inputs[1], key, root_of_key);
  if (queries == nullptr || keys == nullptr || root_of_query != root_of_key) return;
  std::vector<OnnxNode*> parts = {queries, keys, scores, mask, &softmax};
  OnnxNode* dropout = only_reader(softmax, "Dropout");
  OnnxNode* last = only_reader(dropout != nullptr ? *dropout : softmax, "MatMul");
  if (last == nullptr || last->inputs[0] != (dropout != nullptr ? *dropout : softmax).outputs[0]) {
    return;
  }
  const std::string stored = untransposed(key, parts);
  if (stored.empty()) return;
  double probability = 0.0;
  if (dropout != nullptr && dropout->inputs.size() > 1) {
    probability = number(dropout->inputs[1]).value_or(0.0);
  }
  parts.push_back(dropout);
  std::vector<std::string> inputs = {query, stored, last->inputs[1]};
  if (mask != nullptr) inputs.push_back(mask->inputs[1]);
  replace(parts, *last, "Attention", std::move(inputs));
  facts::OnnxAttribute drops;
  drops.name = "dropout";
  drops.real = probability;
  last->attributes.push_back(std::move(drops));
}

void Fusion::run() {
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    OnnxNode& node = nodes_[i];
    if (gone_[i] || !node.domain.empty() || node.inputs.empty() || node.outputs.empty()) continue;
    if (node.op_type == "Erf") gelu(node);
    if (node.op_type == "Tanh") tanh_gelu(node);
    if (node.op_type == "Sigmoid") silu(node);
    if (node.op_type == "ReduceMean") layer_norm(node);
    if (node.op_type == "InstanceNormalization") group_norm(node);
    if (node.op_type == "Softmax") attention(node);
  }
  std::vector<OnnxNode> kept;
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    if (!gone_[i]) kept.push_back(std::move(nodes_[i]));
  }
  nodes_ = std::move(kept);
}

}  // namespace

void fuse_onnx_nodes(std::vector<OnnxNode>& nodes, const facts::OnnxGraph& graph) {
  Fusion(nodes, graph).run();
}

}  // namespace steelyard::model
