// Operators of single elements: unary, binary, selections. What the
// derivative of each reads is as in PyTorch's derivatives.yaml.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "model/onnx_lowering.h"

namespace steelyard::model {

namespace {

using Wholes = std::vector<std::int64_t>;
using Reals = std::vector<double>;

std::optional<Reals> reals_of(const OnnxValue& value) {
  if (value.reals) return value.reals;
  if (!value.wholes) return std::nullopt;
  return Reals(value.wholes->begin(), value.wholes->end());
}

// Elementwise results lie as their operand does where that leaves no holes (TensorIterator).
void lie_as(OnnxCall& call, OnnxValue& value, std::initializer_list<const OnnxValue*> operands) {
  for (const OnnxValue* operand : operands) {
    if (!operand->is_tensor() || operand->shape != value.shape) continue;
    const Shape sized = call.lowering.sized(operand->shape, operand->places);
    if (!lies_densely(sized, operand->strides)) continue;
    value.strides = operand->strides;
    call.lowering.last().transposed =
        !lies_in_order(call.lowering.sized(value.shape, value.places), value.strides);
    return;
  }
}

// --- Unary ---

struct UnaryForm {
  Saves saves = Saves::input;
  double (*fold)(double) = nullptr;
  bool wide = false;  // autocast_mode.h, AT_FORALL_FP32
};

const std::map<std::string_view, UnaryForm>& unary_forms() {
  static const std::map<std::string_view, UnaryForm> kForms = {
      {"Abs", {Saves::input, [](double x) { return std::abs(x); }}},
      {"Acos", {Saves::input, nullptr, true}},
      {"Acosh", {Saves::input, nullptr}},
      {"Asin", {Saves::input, nullptr, true}},
      {"Asinh", {Saves::input, nullptr}},
      {"Atan", {Saves::input, nullptr}},
      {"Atanh", {Saves::input, nullptr}},
      {"Ceil", {Saves::nothing, [](double x) { return std::ceil(x); }}},
      {"Celu", {Saves::input, nullptr}},
      {"Clip", {Saves::input, nullptr}},
      {"Cos", {Saves::input, nullptr}},
      {"Cosh", {Saves::input, nullptr, true}},
      {"CumSum", {Saves::nothing, nullptr, true}},
      {"Elu", {Saves::input, nullptr}},
      {"Erf", {Saves::input, nullptr}},
      {"Exp", {Saves::output, [](double x) { return std::exp(x); }, true}},
      {"Floor", {Saves::nothing, [](double x) { return std::floor(x); }}},
      {"HardSigmoid", {Saves::input, nullptr}},
      {"HardSwish", {Saves::input, nullptr}},
      {"LRN", {Saves::both, nullptr}},
      {"LeakyRelu", {Saves::input, nullptr}},
      {"Log", {Saves::input, [](double x) { return std::log(x); }, true}},
      {"Mish", {Saves::input, nullptr}},
      {"Neg", {Saves::nothing, [](double x) { return -x; }}},
      {"Reciprocal", {Saves::output, [](double x) { return 1.0 / x; }, true}},
      {"Round", {Saves::nothing, [](double x) { return std::nearbyint(x); }}},
      {"Selu", {Saves::input, nullptr}},
      {"Shrink", {Saves::input, nullptr}},
      {"Sigmoid", {Saves::output, nullptr}},
      {"Sign", {Saves::nothing, nullptr}},
      {"Sin", {Saves::input, nullptr}},
      {"Sinh", {Saves::input, nullptr, true}},
      {"Softplus", {Saves::input, nullptr, true}},
      {"Softsign", {Saves::both, nullptr}},
      {"Sqrt", {Saves::output, [](double x) { return std::sqrt(x); }}},
      {"Tan", {Saves::output, nullptr, true}},
      {"ThresholdedRelu", {Saves::input, nullptr}},
      {"Trilu", {Saves::nothing, nullptr}},
  };
  return kForms;
}

void lower_unary(OnnxCall& call) {
  const UnaryForm& form = unary_forms().at(call.node.op_type);
  const OnnxValue& x = call.at(0);
  if (x.is_constant()) {
    call.out[0] = constant_like(x.shape, x.kind);
    if (call.node.op_type == "Clip") return fold_onnx_clip(call);
    if (form.fold == nullptr) return;
    if (x.wholes && call.node.op_type == "Neg") {
      call.out[0].wholes = *x.wholes;
      for (std::int64_t& v : *call.out[0].wholes) {
        v = v == std::numeric_limits<std::int64_t>::min() ? v : -v;
      }
    } else if (x.reals) {
      call.out[0].reals = *x.reals;
      for (double& v : *call.out[0].reals) v = form.fold(v);
    }
    return;
  }
  call.out[0] = call.lowering.emit(OperatorKind::unary, call, {&x}, x.shape, x.kind);
  Operator& op = call.lowering.last();
  op.saves = form.saves;
  op.wide = form.wide;
  lie_as(call, call.out[0], {&x});
}

void lower_activation(OnnxCall& call, ActivationKind kind) {
  const OnnxValue& x = call.at(0);
  if (x.is_constant()) {
    call.out[0] = constant_like(x.shape, x.kind);
    return;
  }
  call.out[0] = call.lowering.emit(OperatorKind::activation, call, {&x}, x.shape);
  call.lowering.last().activation = kind;
  lie_as(call, call.out[0], {&x});
}

void lower_relu(OnnxCall& call) {
  lower_activation(call, ActivationKind::relu);
}
void lower_tanh(OnnxCall& call) {
  lower_activation(call, ActivationKind::tanh);
}
void lower_silu(OnnxCall& call) {
  lower_activation(call, ActivationKind::silu);
}
void lower_gelu(OnnxCall& call) {
  const bool tanh = call.text("approximate", "none") == "tanh";
  lower_activation(call, tanh ? ActivationKind::gelu_tanh : ActivationKind::gelu);
}

// Results that have no derivative: comparisons, logic, positions.
void lower_predicate(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  if (x.is_constant()) {
    call.out[0] = constant_like(x.shape, ElementKind::boolean);
    if (call.node.op_type != "Not" || !x.wholes) return;
    call.out[0].wholes = *x.wholes;
    for (std::int64_t& v : *call.out[0].wholes) v = v == 0 ? 1 : 0;
    return;
  }
  call.out[0] = call.lowering.emit(OperatorKind::unary, call, {&x}, x.shape, ElementKind::boolean);
}

void lower_cast(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  const bool like = call.node.op_type == "CastLike";
  if (like && !call.has(1)) return call.refuse("no second input", "the tensor whose type it takes");
  const ElementKind kind =
      like ? call.at(1).kind : kind_of_onnx(static_cast<facts::OnnxElement>(call.whole("to", 1)));
  if (kind == x.kind) {  // the job's precision decides which real type a tensor has
    call.out[0] = x;
    return;
  }
  if (!x.is_tensor()) {
    OnnxValue value = constant_like(x.shape, kind);
    if (kind == ElementKind::real && x.wholes) value.reals = reals_of(x);
    if (kind != ElementKind::real && x.wholes) value.wholes = x.wholes;
    if (kind != ElementKind::real && x.reals) {
      value.wholes.emplace();
      for (const double v : *x.reals) {
        const bool fits = std::abs(v) < 9.2e18;
        value.wholes->push_back(fits ? static_cast<std::int64_t>(v)
                                     : std::numeric_limits<std::int64_t>::max());
      }
    }
    if (kind == ElementKind::boolean && value.wholes) {
      for (std::int64_t& v : *value.wholes) v = v != 0 ? 1 : 0;
    }
    call.out[0] = std::move(value);
    return;
  }
  call.out[0] = call.lowering.emit(OperatorKind::unary, call, {&x}, x.shape, kind);
}

// --- Binary ---

struct BinaryForm {
  ArithmeticKind arithmetic = ArithmeticKind::add;
  std::optional<std::int64_t> (*whole)(std::int64_t, std::int64_t) = nullptr;
  double (*real)(double, double) = nullptr;
};

using Folded = std::optional<std::int64_t>;

Folded whole_add(std::int64_t a, std::int64_t b) {
  std::int64_t r = 0;
  if (__builtin_add_overflow(a, b, &r)) return std::nullopt;
  return r;
}
Folded whole_sub(std::int64_t a, std::int64_t b) {
  std::int64_t r = 0;
  if (__builtin_sub_overflow(a, b, &r)) return std::nullopt;
  return r;
}
Folded whole_mul(std::int64_t a, std::int64_t b) {
  std::int64_t r = 0;
  if (__builtin_mul_overflow(a, b, &r)) return std::nullopt;
  return r;
}
bool divides(std::int64_t a, std::int64_t b) {
  return b != 0 && !(a == std::numeric_limits<std::int64_t>::min() && b == -1);
}
Folded whole_div(std::int64_t a, std::int64_t b) {
  return divides(a, b) ? Folded(a / b) : Folded();
}
Folded whole_mod(std::int64_t a, std::int64_t b) {  // the sign of the divisor
  if (!divides(a, b)) return {};
  const std::int64_t r = a % b;
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

const std::map<std::string_view, BinaryForm>& binary_forms() {
  using A = ArithmeticKind;
  static const std::map<std::string_view, BinaryForm> kForms = {
      {"Add", {A::add, whole_add, [](double a, double b) { return a + b; }}},
      {"And", {A::compare, [](std::int64_t a, std::int64_t b) -> Folded { return a && b; }}},
      {"BitShift", {A::compare}},
      {"BitwiseAnd", {A::compare, [](std::int64_t a, std::int64_t b) -> Folded { return a & b; }}},
      {"BitwiseOr", {A::compare, [](std::int64_t a, std::int64_t b) -> Folded { return a | b; }}},
      {"BitwiseXor", {A::compare, [](std::int64_t a, std::int64_t b) -> Folded { return a ^ b; }}},
      {"Div", {A::divide, whole_div, [](double a, double b) { return a / b; }}},
      {"Equal", {A::compare, [](std::int64_t a, std::int64_t b) -> Folded { return a == b; }}},
      {"Greater", {A::compare, [](std::int64_t a, std::int64_t b) -> Folded { return a > b; }}},
      {"GreaterOrEqual",
       {A::compare, [](std::int64_t a, std::int64_t b) -> Folded { return a >= b; }}},
      {"Less", {A::compare, [](std::int64_t a, std::int64_t b) -> Folded { return a < b; }}},
      {"LessOrEqual",
       {A::compare, [](std::int64_t a, std::int64_t b) -> Folded { return a <= b; }}},
      {"Max",
       {A::choose, [](std::int64_t a, std::int64_t b) -> Folded { return std::max(a, b); },
        [](double a, double b) { return std::max(a, b); }}},
      {"Mean", {A::add}},
      {"Min",
       {A::choose, [](std::int64_t a, std::int64_t b) -> Folded { return std::min(a, b); },
        [](double a, double b) { return std::min(a, b); }}},
      {"Mod", {A::divide, whole_mod}},
      {"Mul", {A::multiply, whole_mul, [](double a, double b) { return a * b; }}},
      {"Or", {A::compare, [](std::int64_t a, std::int64_t b) -> Folded { return a || b; }}},
      {"PRelu", {A::multiply}},
      {"Pow", {A::power, nullptr, [](double a, double b) { return std::pow(a, b); }}},
      {"Sub", {A::add, whole_sub, [](double a, double b) { return a - b; }}},
      {"Sum", {A::add, whole_add, [](double a, double b) { return a + b; }}},
      {"Xor", {A::compare, [](std::int64_t a, std::int64_t b) -> Folded { return !a != !b; }}},
  };
  return kForms;
}

// The element of a broadcast operand that stands at place `index` of the result.
std::size_t place_of(std::int64_t index, const Shape& result, const Shape& operand) {
  std::int64_t place = 0, step = 1;
  for (std::size_t back = 0; back < operand.size(); ++back) {
    const std::int64_t size = result[result.size() - 1 - back];
    const std::int64_t own = operand[operand.size() - 1 - back];
    const std::int64_t at = index % size;
    index /= size;
    if (own > 1) place += at * step;
    step *= own;
  }
  return static_cast<std::size_t>(place);
}

constexpr std::int64_t kMostSizes = 64;  // dimensions of a tensor

void fold_binary(const OnnxCall& call, const BinaryForm& form, const OnnxValue& a,
                 const OnnxValue& b, OnnxValue& out) {
  const std::int64_t count = out.numel();
  if (count > kMostFolded) return;
  if (a.wholes && b.wholes && form.whole != nullptr) {
    Wholes values;
    for (std::int64_t i = 0; i < count; ++i) {
      const auto value = form.whole((*a.wholes)[place_of(i, out.shape, a.shape)],
                                    (*b.wholes)[place_of(i, out.shape, b.shape)]);
      // Of many elements none is a size: places of pairs, the least number of a mask.
      if (!value && count > kMostSizes) return;
      if (!value) return call.refuse("a number beyond 64 bits", "arithmetic on sizes of tensors");
      values.push_back(*value);
    }
    out.wholes = std::move(values);
    return;
  }
  const auto left = reals_of(a);
  const auto right = reals_of(b);
  if (!left || !right || form.real == nullptr) return;
  Reals values;
  for (std::int64_t i = 0; i < count; ++i) {
    values.push_back(form.real((*left)[place_of(i, out.shape, a.shape)],
                               (*right)[place_of(i, out.shape, b.shape)]));
  }
  out.reals = std::move(values);
}

// An initializer that meets nothing real is a constant: the frequencies of rotary positions. So is
// one that torch's exporter computed, which bears a number in place of a parameter's name.
// But a factor for each channel is a parameter that it gave the picture's dimensions.
bool is_a_constant(const OnnxCall& call, const OnnxValue& value, const OnnxValue& other) {
  if (!value.is_weight()) return value.is_constant();
  if (value.initializers.front()->name.starts_with("onnx::")) {
    const bool vector = std::any_of(value.shape.begin(), value.shape.end(),
                                    [&](std::int64_t size) { return size == value.numel(); });
    const bool scales = call.node.op_type == "Mul" && vector && value.numel() > 1;
    if (!scales || !other.of_data) return true;
  }
  return !other.of_data && !other.is_weight();
}

// x @ W + b as one linear: the sum is the product's only reader.
bool joins_bias(OnnxCall& call, const OnnxValue& product, const OnnxValue& bias) {
  if (call.node.op_type != "Add" || !product.is_tensor() || product.producer < 0) return false;
  if (!bias.is_weight() || bias.initializers.size() != 1 || bias.rank() != 1) return false;
  Operator& op = call.lowering.made_by(product);
  const bool bare = op.kind == OperatorKind::linear && op.weights.size() == 1;
  if (!bare || op.outputs.front().index != product.ref.index) return false;
  if (product.shape.back() != bias.shape.front() || !call.lowering.read_once(product)) return false;
  const std::int32_t weight = call.lowering.weight(bias, WeightRole::bias);
  call.lowering.made_by(product).weights.push_back(weight);
  call.out[0] = product;
  return true;
}

// A stored tensor times a number, of real numbers: planned as the stored tensor
// (docs/model/graph.md).
const OnnxValue* scaled_weight(const BinaryForm& form, const OnnxValue& a, const OnnxValue& b) {
  const bool scales =
      form.arithmetic == ArithmeticKind::multiply || form.arithmetic == ArithmeticKind::divide;
  const auto is = [&](const OnnxValue& value, const OnnxValue& number) {
    return scales && value.is_weight() && number.is_constant() && number.numel() == 1 &&
           value.numel() > 1 && number.rank() <= value.rank() &&
           !value.initializers.front()->name.starts_with("onnx::");
  };
  if (is(a, b)) return &a;
  return form.arithmetic == ArithmeticKind::multiply && is(b, a) ? &b : nullptr;
}

OnnxValue two_operands(OnnxCall& call, const BinaryForm& form, const OnnxValue& first,
                       const OnnxValue& second) {
  if (const OnnxValue* scaled = scaled_weight(form, first, second)) {
    OnnxValue same = *scaled;
    same.reals.reset();
    return same;
  }
  OnnxValue a = first, b = second;
  if (is_a_constant(call, first, second)) a.initializers.clear();
  if (is_a_constant(call, second, first)) b.initializers.clear();
  auto shape = broadcast_of(a.shape, b.shape);
  if (!shape) {
    call.refuse(
        "shapes that do not meet", "equal sizes, or 1",
        "is the sequence longer than the file's table of positions, or a size fixed in it?");
    return {};
  }
  const bool compares = form.arithmetic == ArithmeticKind::compare;
  const bool bitwise = call.node.op_type.starts_with("Bit");
  const ElementKind kind = compares && !bitwise ? ElementKind::boolean : a.kind;
  if (a.is_constant() && b.is_constant()) {
    OnnxValue out = constant_like(*shape, kind);
    fold_binary(call, form, a, b, out);
    return out;
  }
  // With a number: x + 2, x * 2, x ** 2.
  const bool scalar = b.is_constant() && b.numel() == 1 && a.is_tensor() && *shape == a.shape;
  const bool scalar_first = a.is_constant() && a.numel() == 1 && b.is_tensor() && *shape == b.shape;
  if ((scalar || scalar_first) && kind == ElementKind::real) {
    const OnnxValue& x = scalar ? a : b;
    OnnxValue out = call.lowering.emit(OperatorKind::unary, call, {&x}, *shape, kind);
    Operator& op = call.lowering.last();
    op.wide = form.arithmetic == ArithmeticKind::power;
    switch (form.arithmetic) {
      case ArithmeticKind::power:
      case ArithmeticKind::choose: op.saves = Saves::input; break;
      case ArithmeticKind::divide: op.saves = scalar ? Saves::nothing : Saves::both; break;
      default: op.saves = Saves::nothing;
    }
    lie_as(call, out, {&x});
    return out;
  }
  std::vector<OnnxValue> both = {std::move(a), std::move(b)};
  call.lowering.meet(call, both, {.broadcasts = true});
  OnnxValue out =
      call.lowering.emit(OperatorKind::binary, call, {&both[0], &both[1]}, *shape, kind);
  call.lowering.last().arithmetic = form.arithmetic;
  call.lowering.last().wide = form.arithmetic == ArithmeticKind::power;
  lie_as(call, out, {&both[0], &both[1]});
  return out;
}

void lower_binary(OnnxCall& call) {
  const BinaryForm& form = binary_forms().at(call.node.op_type);
  if (call.in.size() == 1) {  // Max, Min, Sum, Mean of one
    call.out[0] = call.at(0);
    return;
  }
  if (!call.has(1)) return call.refuse("one operand", "two operands");
  if (joins_bias(call, call.at(0), call.at(1)) || joins_bias(call, call.at(1), call.at(0))) return;
  OnnxValue sum = two_operands(call, form, call.at(0), call.at(1));
  for (std::size_t i = 2; i < call.in.size() && call.well(); ++i) {
    if (!call.has(i)) return call.refuse("an operand that is not there", "tensors");
    sum = two_operands(call, form, sum, call.at(i));
  }
  call.out[0] = std::move(sum);
}

void lower_where(OnnxCall& call) {
  const OnnxValue& condition = call.at(0);
  const OnnxValue& a = call.at(1);
  const OnnxValue& b = call.at(2);
  const auto both = broadcast_of(a.shape, b.shape);
  const auto shape = both ? broadcast_of(condition.shape, *both) : both;
  if (!shape) return call.refuse("shapes that do not meet", "equal sizes, or 1");
  if (condition.is_constant() && a.is_constant() && b.is_constant()) {
    OnnxValue out = constant_like(*shape, a.kind);
    if (condition.wholes && a.wholes && b.wholes && out.numel() <= kMostFolded) {
      out.wholes.emplace();
      for (std::int64_t i = 0; i < out.numel(); ++i) {
        const bool first = (*condition.wholes)[place_of(i, *shape, condition.shape)] != 0;
        const OnnxValue& from = first ? a : b;
        out.wholes->push_back((*from.wholes)[place_of(i, *shape, from.shape)]);
      }
    }
    call.out[0] = std::move(out);
    return;
  }
  std::vector<OnnxValue> all = {condition, a, b};
  call.lowering.meet(call, all, {.broadcasts = true});
  call.out[0] =
      call.lowering.emit(OperatorKind::select, call, {&all[0], &all[1], &all[2]}, *shape, a.kind);
  lie_as(call, call.out[0], {&all[1], &all[2]});
}

// torch's exporter stores equal tensors once and names the others by an Identity
// (jit/passes/onnx/deduplicate_initializers.cpp). Vectors are equal because they are fresh norms
// and biases, each a parameter of its own; an equal matrix is a tied one.
void lower_identity(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  call.out[0] = x;
  if (!x.is_weight() || x.initializers.size() != 1 || x.rank() != 1) return;
  call.out[0].initializers = {
      call.lowering.renamed(*x.initializers.front(), call.node.outputs.front())};
}

void lower_dropout(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  double probability = call.real("ratio", 0.5);
  if (call.has(1)) probability = call.at(1).reals ? call.at(1).reals->front() : probability;
  call.out[0] = x;
  if (call.out.size() > 1) call.out[1] = constant_like(x.shape, ElementKind::boolean);
  if (!(probability > 0.0) || !x.is_tensor()) return;
  call.out[0] = call.lowering.emit(OperatorKind::dropout, call, {&x}, x.shape);
  call.lowering.last().probability = probability;
}

// Random numbers of another tensor's shape: they exist in a training step, and have no derivative.
void lower_random(OnnxCall& call) {
  const bool like = call.node.op_type.ends_with("Like") || call.node.op_type == "Bernoulli";
  if (like && !call.has(0)) return call.refuse("no input", "the tensor whose shape it takes");
  call.out[0] =
      constant_like(like ? call.at(0).shape : Shape(call.wholes("shape")), ElementKind::real);
}

}  // namespace

const OnnxOperators& onnx_arithmetic_operators() {
  static const OnnxOperators kOperators = [] {
    OnnxOperators all;
    for (const auto& [name, form] : unary_forms()) all[name] = {lower_unary};
    for (const auto& [name, form] : binary_forms()) all[name] = {lower_binary};
    for (const char* name : {"Not", "IsNaN", "IsInf"}) all[name] = {lower_predicate};
    for (const char* name :
         {"RandomUniformLike", "RandomNormalLike", "RandomUniform", "RandomNormal", "Bernoulli"}) {
      all[name] = {lower_random, 0};
    }
    all["Cast"] = all["CastLike"] = {lower_cast};
    all["Dropout"] = {lower_dropout};
    all["Gelu"] = {lower_gelu};
    all["Identity"] = {lower_identity};
    all["Relu"] = {lower_relu};
    all["Swish"] = {lower_silu};
    all["Tanh"] = {lower_tanh};
    all["Where"] = {lower_where, 3};
    return all;
  }();
  return kOperators;
}

}  // namespace steelyard::model
