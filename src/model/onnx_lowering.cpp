#include "model/onnx_lowering.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/suggest.h"

namespace steelyard::model {

namespace {

using facts::OnnxAttribute;
using facts::OnnxNode;
using facts::OnnxTensor;

constexpr std::int64_t kMostOperators = 50'000;   // of the lowered graph
constexpr std::int64_t kMostLowered = 1'000'000;  // nodes, functions put in as often as called
constexpr std::int64_t kDeepestCall = 16;
constexpr std::int64_t kOldestSet = 7;

const std::vector<const OnnxOperators*>& tables() {
  static const std::vector<const OnnxOperators*> kTables = {
      &onnx_arithmetic_operators(), &onnx_reduction_operators(), &onnx_shape_operators(),
      &onnx_index_operators(),      &onnx_network_operators(),   &onnx_matrix_operators(),
      &onnx_sequence_operators(),   &onnx_quantized_operators()};
  return kTables;
}

const OnnxOperator* operator_named(std::string_view name) {
  for (const OnnxOperators* table : tables()) {
    const auto found = table->find(name);
    if (found != table->end()) return &found->second;
  }
  return nullptr;
}

std::string title(const OnnxNode& node) {
  return node.name.empty() ? node.op_type : fmt::format("{} ({})", node.name, node.op_type);
}

// An If whose condition the shapes do not decide.
bool branches_on_data(const OnnxCall& call) {
  return call.node.op_type == "If" && call.has(0) &&
         (!call.at(0).wholes || call.at(0).wholes->empty());
}

// A linear's module is what its weight belongs to: "encoder.layer.0.query.weight".
std::string module_of(const OnnxNode& node) {
  std::string name = node.name.empty() ? node.op_type : node.name;
  while (name.starts_with('/')) name.erase(0, 1);
  std::replace(name.begin(), name.end(), '/', '.');
  return name;
}

}  // namespace

std::vector<std::string> known_onnx_operators() {
  std::vector<std::string> names;
  for (const OnnxOperators* table : tables()) {
    for (const auto& [name, of] : *table) {
      if (of.lower != nullptr) names.emplace_back(name);
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

ElementKind kind_of_onnx(facts::OnnxElement element) {
  constexpr facts::OnnxElement kBool = 9;
  switch (element) {
    case 2:
    case 3:
    case 4:
    case 5:
    case 6:
    case 7:
    case 8:
    case 12:
    case 13: return ElementKind::index;
    case kBool: return ElementKind::boolean;
    default: return ElementKind::real;
  }
}

// --- What operators need ---

OnnxLowering::OnnxLowering(const facts::OnnxModel& model, std::string name,
                           const SampleShape& sample, OnnxShapes* shapes)
    : model_(model), name_(std::move(name)), sample_(sample), shapes_(shapes) {
  block_.name = "head";
  graph.name = name_;
}

Operator& OnnxLowering::append(OperatorKind kind, const OnnxCall& call,
                               std::vector<TensorRef> inputs) {
  if (std::ssize(block_.operators) >= kMostOperators) {
    refuse({.code = ErrorCode::too_large,
            .subject = name_,
            .found = fmt::format("more than {} operators", kMostOperators),
            .accepted = "a graph of fewer"});
  }
  Operator& op = block_.operators.emplace_back();
  op.kind = kind;
  op.name = module_of(call.node);
  op.inputs = std::move(inputs);
  return op;
}

OnnxValue OnnxLowering::result(const OnnxCall& call, Shape shape, ElementKind kind) {
  (void)elements(shape);  // countable
  block_.tensors.push_back({module_of(call.node), shape, kind});
  OnnxValue value;
  value.kind = kind;
  value.ref = {false, static_cast<std::int32_t>(block_.tensors.size()) - 1};
  value.strides = contiguous_strides(shape);
  value.shape = std::move(shape);
  value.producer = std::ssize(block_.operators) - 1;
  value.differentiable = value.of_data = kind == ElementKind::real;
  last().outputs.push_back(value.ref);
  return value;
}

OnnxValue OnnxLowering::emit(OperatorKind kind, const OnnxCall& call,
                             const std::vector<const OnnxValue*>& inputs, Shape shape,
                             ElementKind of) {
  std::vector<TensorRef> refs;
  bool differentiable = false, of_data = false;
  for (const OnnxValue* input : inputs) {
    refs.push_back(operand(call, *input));
    differentiable = differentiable || input->differentiable || input->is_weight();
    of_data = of_data || input->of_data;
  }
  append(kind, call, std::move(refs));
  OnnxValue value = result(call, std::move(shape), of);
  if (moves_batch()) {
    BatchPlaces places;
    for (const OnnxValue* input : inputs) {
      if (input->is_tensor()) add_aligned(places, value.shape, input->shape, input->places);
    }
    place(value, std::move(places));
  }
  value.differentiable = value.differentiable && differentiable;
  value.of_data = of_data || value.differentiable;
  return value;
}

TensorRef OnnxLowering::operand(const OnnxCall& call, const OnnxValue& value) {
  if (value.is_tensor()) return value.ref;
  std::vector<std::int32_t> weights;
  for (const OnnxTensor* tensor : value.initializers) {
    OnnxValue one;
    one.initializers = {tensor};
    weights.push_back(weight(one, WeightRole::other));
  }
  append(weights.empty() ? OperatorKind::constant : OperatorKind::parameter, call, {}).weights =
      std::move(weights);
  return result(call, value.shape, value.kind).ref;
}

OnnxValue OnnxLowering::ordered(const OnnxCall& call, const OnnxValue& value) {
  if (!value.is_tensor() || lies_in_order(sized(value.shape, value.places), value.strides)) {
    return value;
  }
  OnnxValue copy = emit(OperatorKind::contiguous, call, {&value}, value.shape, value.kind);
  return copy;
}

OnnxValue OnnxLowering::viewed(const OnnxCall& call, const OnnxValue& value, const Shape& shape,
                               std::optional<BatchPlaces> places) {
  if (!value.is_tensor()) {
    OnnxValue same = value;
    same.shape = shape;
    return same;
  }
  if (shape == value.shape) return value;
  if (!places) places = places_of_view(value.shape, value.places, shape, fixed_batch);
  if (!places) {
    refuse_batch(call, fmt::format("cut apart by the shape {}", text_of(shape)));
    return value;
  }
  const Shape to = sized(shape, *places);
  const auto strides = strides_of_view(sized(value.shape, value.places), value.strides, to);
  const OnnxValue source = strides ? value : ordered(call, value);
  OnnxValue view = emit(OperatorKind::view, call, {&source}, shape, value.kind);
  place(view, std::move(*places));
  view.strides = strides ? *strides : contiguous_strides(to);
  last().transposed = !lies_in_order(to, view.strides);
  return view;
}

bool OnnxLowering::read_once(const OnnxValue& value) const {
  const auto found = uses_.find(value.name);
  return found != uses_.end() && found->second == 1;
}

// --- The walk ---

const OnnxValue* OnnxLowering::find(const std::string& name, const Scope& scope) const {
  for (const Scope* at = &scope; at != nullptr; at = at->outer) {
    const auto found = at->values.find(name);
    if (found != at->values.end()) return &found->second;
  }
  return nullptr;
}

std::int64_t OnnxLowering::version_of(const std::string& domain) const {
  for (const facts::OnnxOperatorSet& set : model_.operator_sets) {
    if (set.domain == domain) return set.version;
  }
  return 1;
}

const facts::OnnxFunction* OnnxLowering::function_of(const OnnxNode& node) const {
  for (const facts::OnnxFunction& function : model_.functions) {
    if (function.name == node.op_type && function.domain == node.domain) return &function;
  }
  return nullptr;
}

void OnnxLowering::add_initializers(const std::vector<OnnxTensor>& tensors, Scope& scope) {
  for (const OnnxTensor& tensor : tensors) {
    OnnxValue value;
    value.shape = tensor.dims;
    value.kind = kind_of_onnx(tensor.element);
    value.name = tensor.name;
    value.wholes = tensor.wholes;
    value.reals = tensor.reals;
    const auto holds = [&](std::size_t count) {
      return static_cast<std::int64_t>(count) == value.numel();
    };
    if ((value.wholes && !holds(value.wholes->size())) ||
        (value.reals && !holds(value.reals->size()))) {
      return refuse({.code = ErrorCode::bad_input,
                     .subject = fmt::format("{}: initializer {}", name_, tensor.name),
                     .found = "another number of values than its shape has",
                     .accepted = "one for each element"});
    }
    // A single number is a constant that an exporter put here; numbers that are not real do not
    // train.
    const bool trains = !model_.graph.buffers.contains(tensor.name);
    if (value.kind == ElementKind::real && !tensor.dims.empty() && trains) {
      value.initializers = {&tensor};
    }
    if (scope.values.emplace(tensor.name, std::move(value)).second) continue;
    refuse({.code = ErrorCode::bad_input,
            .subject = fmt::format("{}: initializer {}", name_, tensor.name),
            .found = "a name that something else bears",
            .accepted = "a name of its own for every value"});
    return;
  }
}

void OnnxLowering::lower_nodes(const std::vector<OnnxNode>& nodes, Scope& scope) {
  const Scope* before = std::exchange(scope_, &scope);
  for (const OnnxNode& node : nodes) {
    if (!well()) break;
    lower_node(node, scope);
  }
  scope_ = before;
}

void OnnxLowering::refuse_operator(const OnnxNode& node) {
  const std::vector<std::string> names = known_onnx_operators();
  const auto nearest = nearest_name(node.op_type, names);
  Error error{
      .code = ErrorCode::not_supported,
      .subject = fmt::format("{}: node {}", name_, title(node)),
      .found =
          fmt::format("operator {}{}{}", node.domain, node.domain.empty() ? "" : ".", node.op_type),
      .accepted = fmt::format("one of {} operators of ai.onnx (docs/model/graph.md)", names.size()),
      .hint = nearest && *nearest != node.op_type ? "did you mean " + *nearest + "?" : ""};
  return refuse(std::move(error));
}

void OnnxLowering::lower_node(const OnnxNode& node, Scope& scope) {
  // Attributes that a function takes from where it is called.
  std::optional<OnnxNode> bound;
  if (scope.function != nullptr) {
    for (std::size_t i = 0; i < node.attributes.size(); ++i) {
      const std::string& from = node.attributes[i].of_function;
      if (from.empty()) continue;
      if (!bound) bound = node;
      const OnnxAttribute* value = nullptr;
      for (const OnnxAttribute& given : scope.function->defaults) {
        if (given.name == from) value = &given;
      }
      for (const OnnxAttribute& given : scope.called->attributes) {
        if (given.name == from) value = &given;
      }
      const std::string name = node.attributes[i].name;
      bound->attributes[i] = value != nullptr ? *value : OnnxAttribute();
      bound->attributes[i].name = value != nullptr ? name : "";
    }
  }
  OnnxCall call{*this, bound ? *bound : node, {}, {}, version_of(node.domain)};
  if (++lowered_ > kMostLowered) return call.refuse("too many nodes", "fewer");
  for (const std::string& input : node.inputs) {
    const OnnxValue* value = input.empty() ? nullptr : find(input, scope);
    if (value == nullptr && !input.empty()) {
      return call.refuse(fmt::format("input \"{}\", which nothing makes", input),
                         "the name of an input, an initializer or another node's output");
    }
    call.in.push_back(value);
  }
  call.out.resize(node.outputs.size());
  const bool standard = node.domain.empty();
  const OnnxOperator* known = standard ? operator_named(node.op_type) : nullptr;
  const facts::OnnxFunction* function = known == nullptr ? function_of(node) : nullptr;
  if (known == nullptr && function == nullptr) {
    return refuse_operator(node);
  }
  const bool open = std::any_of(call.in.begin(), call.in.end(), [](const OnnxValue* value) {
    return value != nullptr && value->unknown;
  });
  if (open || (known != nullptr && known->lower == nullptr) || branches_on_data(call)) {
    cut(call, scope);
  } else if (known != nullptr) {
    for (std::size_t i = 0; i < known->inputs; ++i) {
      if (!call.has(i)) {
        return call.refuse(fmt::format("no input {}", i + 1),
                           fmt::format("at least {} inputs", known->inputs));
      }
    }
    if (call.out.empty()) return;  // nobody can read it
    adopt_weights(call);
    known->lower(call);
  } else {
    lower_function(*function, call);
  }
  if (!well()) return;
  if (known != nullptr && !open && moves_batch()) check_batch(call);
  for (std::size_t i = 0; i < node.outputs.size(); ++i) {
    if (node.outputs[i].empty()) continue;
    OnnxValue& value = call.out[i];
    value.name = node.outputs[i];
    // Of a graph that is computed anyhow: real numbers alone have values worth a name.
    if (shapes_ != nullptr && !value.unknown) shapes_->by_value[value.name] = value.shape;
    if (!scope.values.emplace(value.name, std::move(value)).second) {
      return call.refuse(fmt::format("output \"{}\", which something else bears", node.outputs[i]),
                         "a name of its own for every value");
    }
  }
}

void OnnxLowering::lower_function(const facts::OnnxFunction& function, OnnxCall& call) {
  if (++depth_ > kDeepestCall) {
    return call.refuse(
        fmt::format("functions that call each other more than {} deep", kDeepestCall),
        "functions that do not call themselves");
  }
  auto nodes = ordered_nodes(function.nodes, name_);
  if (!nodes) return refuse(nodes.error());
  Scope scope;
  scope.function = &function;
  scope.called = &call.node;
  for (std::size_t i = 0; i < function.inputs.size(); ++i) {
    if (call.has(i)) scope.values.emplace(function.inputs[i], call.at(i));
  }
  lower_nodes(*nodes, scope);
  for (std::size_t i = 0; well() && i < call.out.size(); ++i) {
    const OnnxValue* made =
        i < function.outputs.size() ? find(function.outputs[i], scope) : nullptr;
    if (made == nullptr) {
      return call.refuse(fmt::format("function {} without output {}", function.name, i + 1),
                         "a function that makes what is read of it");
    }
    call.out[i] = *made;
  }
  --depth_;
}

void OnnxLowering::inline_graph(OnnxCall& call, const facts::OnnxGraph& inner) {
  if (++depth_ > kDeepestCall) {
    return call.refuse(fmt::format("graphs inside graphs, more than {} deep", kDeepestCall),
                       "fewer");
  }
  auto nodes = ordered_nodes(inner.nodes, name_);
  if (!nodes) return refuse(nodes.error());
  Scope scope;
  scope.outer = scope_;
  add_initializers(inner.initializers, scope);
  count_uses(*nodes);
  lower_nodes(*nodes, scope);
  for (std::size_t i = 0; well() && i < call.out.size(); ++i) {
    const OnnxValue* made = i < inner.outputs.size() ? find(inner.outputs[i].name, scope) : nullptr;
    if (made == nullptr) return call.refuse("a branch without this output", "one for each output");
    call.out[i] = *made;
  }
  --depth_;
}

void OnnxLowering::count_uses(const std::vector<OnnxNode>& nodes) {
  for (const OnnxNode& node : nodes) {
    for (const std::string& input : node.inputs) ++uses_[input];
  }
}

void OnnxLowering::start(Scope& scope) {
  const auto& stored = model_.graph.initializers;
  weights_in_nodes_ = std::none_of(stored.begin(), stored.end(), [](const OnnxTensor& tensor) {
    return kind_of_onnx(tensor.element) == ElementKind::real && tensor.dims.size() > 1;
  });
  add_initializers(model_.graph.initializers, scope);
  if (!well()) return;
  for (OnnxValue& value : onnx_inputs(*this, model_.graph, sample_)) {
    if (shapes_ != nullptr) shapes_->by_value[value.name] = value.shape;
    shared_places_.push_back(value.places);
    std::string name = value.name;
    if (scope.values.emplace(name, std::move(value)).second) continue;
    refuse({.code = ErrorCode::bad_input,
            .subject = fmt::format("{}: input {}", name_, name),
            .found = "a name that something else bears",
            .accepted = "a name of its own for every value"});
  }
}

Result<Graph> OnnxLowering::run() {
  if (version_of("") < kOldestSet) {
    return fail(Error{.code = ErrorCode::not_supported,
                      .subject = name_,
                      .found = fmt::format("operator set {} of ai.onnx", version_of("")),
                      .accepted = fmt::format("operator set {} or newer", kOldestSet),
                      .hint = "onnx.version_converter raises it"});
  }
  if (model_.graph.sparse) {
    return fail(Error{.code = ErrorCode::not_supported,
                      .subject = name_,
                      .found = "sparse initializers",
                      .accepted = "dense ones"});
  }
  STEELYARD_TRY(nodes, ordered_nodes(model_.graph.nodes, name_));
  fuse_onnx_nodes(nodes, model_.graph);
  Scope scope;
  start(scope);
  count_uses(nodes);
  for (const facts::OnnxValueInfo& output : model_.graph.outputs) ++uses_[output.name];
  if (well()) lower_nodes(nodes, scope);
  if (well()) finish(scope);
  if (error_) return fail(*error_);
  for (const Operator& op : block_.operators) {
    if (op.kind != OperatorKind::embedding || graph.vocabulary > 0) continue;
    const Weight& table = block_.weights.at(static_cast<std::size_t>(op.weights.front()));
    graph.vocabulary = table.shape.front();
    graph.hidden = table.shape.back();
  }
  graph.layers = 1;
  graph.model_type = "onnx";
  graph.segments.push_back({1, {std::move(block_)}});
  return std::move(graph);
}

Result<Graph> build_onnx(const facts::OnnxModel& model, const std::string& name,
                         const SampleShape& sample, OnnxShapes* shapes) {
  try {
    auto graph = OnnxLowering(model, name, sample, shapes).run();
    // Where nobody says how long a text is, a table of positions may be shorter than the usual.
    SampleShape shorter = sample;
    for (const std::int64_t sequence : {64, 32, 16, 8}) {
      if (graph || sample.sequence > 0) break;
      shorter.sequence = sequence;
      auto again = OnnxLowering(model, name, shorter, shapes).run();
      if (again) graph = std::move(again);
    }
    return graph;
  } catch (const QuantityOverflow&) {
    return fail(Error{.code = ErrorCode::bad_input,
                      .subject = name,
                      .found = "sizes whose product leaves 64 bits",
                      .accepted = "sizes of a model that could exist"});
  }
}

}  // namespace steelyard::model
