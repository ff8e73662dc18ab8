// Operators that change shapes, or make values out of shapes.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "model/onnx_lowering.h"

namespace steelyard::model {

namespace {

using Wholes = std::vector<std::int64_t>;

OnnxValue constant(Shape shape, ElementKind kind, std::optional<Wholes> wholes = std::nullopt) {
  (void)elements(shape);
  OnnxValue value;
  value.shape = std::move(shape);
  value.kind = kind;
  value.wholes = std::move(wholes);
  return value;
}

void lower_constant(OnnxCall& call) {
  OnnxValue& out = call.out[0];
  for (const facts::OnnxAttribute& attribute : call.node.attributes) {
    if (attribute.name == "value" && attribute.tensor != nullptr) {
      const facts::OnnxTensor& tensor = *attribute.tensor;
      out = constant(tensor.dims, kind_of_onnx(tensor.element), tensor.wholes);
      out.reals = tensor.reals;
      if (call.lowering.weights_in_nodes()) call.lowering.add_weight(out, call.node.outputs[0]);
      return;
    }
    const auto count = [](const auto& values) { return static_cast<std::int64_t>(values.size()); };
    if (attribute.name == "value_int" && attribute.whole) {
      out = constant({}, ElementKind::index, Wholes{*attribute.whole});
      return;
    }
    if (attribute.name == "value_ints") {
      out = constant({count(attribute.wholes)}, ElementKind::index, attribute.wholes);
      return;
    }
    if (attribute.name == "value_float" && attribute.real) {
      out = constant({}, ElementKind::real);
      out.reals = std::vector<double>{*attribute.real};
      return;
    }
    if (attribute.name == "value_floats") {
      out = constant({count(attribute.reals)}, ElementKind::real);
      out.reals = attribute.reals;
      return;
    }
  }
  call.refuse("a constant without a value that is known here",
              "value, value_int, value_floats ...");
}

void lower_shape(OnnxCall& call) {
  const Shape& shape = call.at(0).shape;
  const auto rank = static_cast<std::int64_t>(shape.size());
  const auto clamped = [rank](std::int64_t at) {
    return std::clamp<std::int64_t>(at < 0 ? at + rank : at, 0, rank);
  };
  const std::int64_t from = clamped(call.whole("start", 0));
  const std::int64_t to = std::max(from, clamped(call.whole("end", rank)));
  Wholes sizes(shape.begin() + from, shape.begin() + to);
  call.out[0] = constant({to - from}, ElementKind::index, std::move(sizes));
}

void lower_size(OnnxCall& call) {
  call.out[0] = constant({}, ElementKind::index, Wholes{call.at(0).numel()});
}

// The target of a Reshape: 0 copies a size, -1 takes what is left.
std::optional<Shape> target_of(OnnxCall& call, const OnnxValue& x, Shape target) {
  const bool keeps_zero = call.whole("allowzero", 0) != 0;
  std::int64_t known = 1;
  std::ptrdiff_t open = -1;
  for (std::size_t i = 0; i < target.size(); ++i) {
    if (target[i] == 0 && !keeps_zero) {
      if (i >= x.shape.size()) return std::nullopt;
      target[i] = x.shape[i];
    }
    if (target[i] == -1 && open < 0) {
      open = static_cast<std::ptrdiff_t>(i);
    } else if (target[i] < 0) {
      return std::nullopt;
    } else {
      known = checked_multiply(known, target[i]);
    }
  }
  const std::int64_t numel = x.numel();
  if (open >= 0) {
    if (known == 0 || numel % known != 0) return std::nullopt;
    target[static_cast<std::size_t>(open)] = numel / known;
  } else if (known != numel) {
    return std::nullopt;
  }
  return target;
}

void reshape_to(OnnxCall& call, const Shape& shape) {
  call.out[0] = call.lowering.viewed(call, call.at(0), shape);
}

// The same with every dimension's place known: a batch of 1 is then not mistaken for another one.
void reshape_to(OnnxCall& call, const Shape& shape, BatchPlaces places) {
  call.out[0] = call.lowering.viewed(call, call.at(0), shape, std::move(places));
}

void lower_reshape(OnnxCall& call) {
  const Wholes asked = call.known(1, "sizes");
  if (!call.well()) return;
  const auto target = target_of(call, call.at(0), asked);
  if (!target) {
    return call.refuse(fmt::format("the target {}", text_of(asked)),
                       "as many elements as the input has",
                       "a batch or sequence that the exporter fixed? Export it with dynamic_axes "
                       "(dynamo: dynamic_shapes) and without Python numbers made of shapes");
  }
  reshape_to(call, *target);
}

void lower_flatten(OnnxCall& call) {
  const Shape& in = call.at(0).shape;
  const auto rank = static_cast<std::int64_t>(in.size());
  const std::int64_t given = call.whole("axis", 1);
  const std::int64_t axis = given < 0 ? given + rank : given;
  if (axis < 0 || axis > rank) {
    return call.refuse(fmt::format("axis {}", given), fmt::format("0 to {}", rank));
  }
  reshape_to(call, {elements(Shape(in.begin(), in.begin() + axis)),
                    elements(Shape(in.begin() + axis, in.end()))});
}

Wholes axes_given(OnnxCall& call) {
  return call.has(1) ? call.known(1, "axes") : call.wholes("axes");
}

void lower_squeeze(OnnxCall& call) {
  const Shape& in = call.at(0).shape;
  Wholes axes = axes_given(call);
  if (!call.well()) return;
  for (std::int64_t& axis : axes) axis = call.axis(axis, call.at(0).rank());
  if (!call.well()) return;
  const BatchPlaces& places = call.at(0).places;
  Shape out;
  BatchPlaces kept;
  for (std::size_t i = 0; i < in.size(); ++i) {
    const bool named = std::count(axes.begin(), axes.end(), static_cast<std::int64_t>(i)) > 0;
    const bool of_batch = i < places.size() && places[i].there();
    if (named && in[i] != 1) return call.refuse("a size that is not 1", "sizes of 1");
    if (named && of_batch) return call.lowering.refuse_batch(call, "squeezed away");
    if (named || (in[i] == 1 && axes.empty() && !of_batch)) continue;
    out.push_back(in[i]);
    kept.push_back(of_batch ? places[i] : BatchPlace());
  }
  reshape_to(call, out, std::move(kept));
}

void lower_unsqueeze(OnnxCall& call) {
  Wholes axes = axes_given(call);
  if (!call.well()) return;
  const std::int64_t rank = call.at(0).rank() + std::ssize(axes);
  for (std::int64_t& axis : axes) axis = call.axis(axis, rank);
  if (!call.well()) return;
  Shape out;
  BatchPlaces places;
  std::size_t next = 0;
  const OnnxValue& x = call.at(0);
  for (std::int64_t i = 0; i < rank; ++i) {
    if (std::count(axes.begin(), axes.end(), i) > 0) {
      out.push_back(1);
      places.emplace_back();
    } else if (next < x.shape.size()) {
      places.push_back(x.places.empty() ? BatchPlace() : x.places[next]);
      out.push_back(x.shape[next++]);
    }
  }
  if (std::ssize(out) != rank) return call.refuse("an axis named twice", "different axes");
  reshape_to(call, out, std::move(places));
}

void lower_transpose(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  Wholes order = call.wholes("perm");
  if (order.empty()) {
    for (std::int64_t i = x.rank(); i-- > 0;) order.push_back(i);
  }
  Wholes sorted = order;
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    if (sorted[i] == static_cast<std::int64_t>(i) && std::ssize(order) == x.rank()) continue;
    return call.refuse(fmt::format("the order {}", text_of(order)), "each dimension once");
  }
  const Shape lies = x.is_tensor() ? x.strides : contiguous_strides(x.shape);
  Shape shape, strides;
  BatchPlaces places;
  for (const std::int64_t i : order) {
    if (!x.places.empty()) places.push_back(x.places[static_cast<std::size_t>(i)]);
    shape.push_back(x.shape[static_cast<std::size_t>(i)]);
    strides.push_back(lies[static_cast<std::size_t>(i)]);
  }
  if (!x.is_tensor()) {
    call.out[0] = x;
    call.out[0].shape = shape;
    if (x.rank() > 1) call.out[0].reals.reset();
    if (x.wholes) call.out[0].wholes = rearranged(*x.wholes, shape, strides, 0);
    return;
  }
  call.out[0] = call.lowering.emit(OperatorKind::view, call, {&x}, shape, x.kind);
  call.lowering.place(call.out[0], places);
  call.out[0].strides = strides;
  call.lowering.last().transposed = !lies_in_order(call.lowering.sized(shape, places), strides);
}

void lower_expand(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  const Wholes asked = call.known(1, "sizes");
  if (!call.well()) return;
  if (std::any_of(asked.begin(), asked.end(), [](std::int64_t size) { return size < 0; })) {
    return call.refuse(fmt::format("the target {}", text_of(asked)), "sizes of 0 or more");
  }
  const auto shape = broadcast_of(x.shape, asked);
  if (!shape) {
    return call.refuse(fmt::format("the target {}", text_of(asked)), "equal sizes, or 1");
  }
  if (!x.is_tensor()) {
    const bool folds = x.wholes && x.wholes->size() == 1 && elements(*shape) <= kMostFolded;
    OnnxValue value = x;
    value.shape = *shape;
    value.reals.reset();
    value.wholes.reset();
    if (folds) {
      value.wholes = Wholes(static_cast<std::size_t>(elements(*shape)), x.wholes->front());
    } else if (x.wholes && *shape == x.shape) {
      value.wholes = x.wholes;
    }
    if (x.is_weight() && *shape != x.shape) {
      value = call.lowering.emit(OperatorKind::expand, call, {&x}, *shape, x.kind);
    }
    call.out[0] = std::move(value);
    return;
  }
  if (elements(*shape) == x.numel()) return reshape_to(call, *shape);
  call.out[0] = call.lowering.emit(OperatorKind::expand, call, {&x}, *shape, x.kind);
  Shape strides(shape->size(), 0);
  const std::size_t offset = shape->size() - x.shape.size();
  for (std::size_t i = 0; i < x.shape.size(); ++i) {
    if (x.shape[i] == (*shape)[offset + i]) strides[offset + i] = x.strides[i];
  }
  call.out[0].strides = std::move(strides);
}

// --- Values made of shapes ---

void lower_constant_of_shape(OnnxCall& call) {
  const Wholes asked = call.known(0, "sizes");
  if (!call.well()) return;
  for (const std::int64_t size : asked) {
    if (size < 0) return call.refuse(fmt::format("a size of {}", size), "sizes of 0 or more");
  }
  const facts::OnnxAttribute* value = call.attribute("value");
  ElementKind kind = ElementKind::real;
  std::optional<Wholes> wholes;
  if (value != nullptr && value->tensor != nullptr) {
    kind = kind_of_onnx(value->tensor->element);
    const auto& single = value->tensor->wholes;
    if (single && single->size() == 1 && elements(asked) <= kMostFolded) {
      wholes = Wholes(static_cast<std::size_t>(elements(asked)), single->front());
    }
  }
  call.out[0] = constant(asked, kind, std::move(wholes));
  if (call.lowering.weights_in_nodes()) call.lowering.add_weight(call.out[0], call.node.outputs[0]);
}

void lower_range(OnnxCall& call) {
  const OnnxValue& start = call.at(0);
  const OnnxValue& limit = call.at(1);
  const OnnxValue& step = call.at(2);
  const auto number = [](const OnnxValue& value) -> std::optional<double> {
    if (value.wholes && !value.wholes->empty()) return static_cast<double>(value.wholes->front());
    if (value.reals && !value.reals->empty()) return value.reals->front();
    return std::nullopt;
  };
  const auto from = number(start), to = number(limit), by = number(step);
  if (!from || !to || !by || *by == 0.0) {
    return call.refuse("a range whose ends depend on data", "ends that the shapes decide");
  }
  const double count = std::max(0.0, std::ceil((*to - *from) / *by));
  if (!(count < 1e12)) return call.refuse("a range of too many numbers", "fewer than 10^12");
  const auto length = static_cast<std::int64_t>(count);
  std::optional<Wholes> wholes;
  if (start.kind == ElementKind::index && length <= kMostFolded && start.wholes && step.wholes) {
    wholes.emplace();
    for (std::int64_t i = 0; i < length; ++i) {
      wholes->push_back(start.wholes->front() + i * step.wholes->front());
    }
  }
  call.out[0] = constant({length}, start.kind, std::move(wholes));
}

void lower_eye_like(OnnxCall& call) {
  call.out[0] = constant(call.at(0).shape, ElementKind::real);
}

// How many classes OneHot has: one number, which exporters also write as a real one.
std::int64_t classes_of(OnnxCall& call) {
  constexpr double kMost = 1e12;
  double depth = -1.0;
  if (call.has(1) && call.at(1).reals) {
    if (call.at(1).reals->size() == 1) depth = call.at(1).reals->front();
  } else {
    const Wholes known = call.known(1, "classes");
    if (!call.well()) return 0;
    if (known.size() == 1) depth = static_cast<double>(known.front());
  }
  if (depth >= 0.0 && depth < kMost) return static_cast<std::int64_t>(depth);
  call.refuse("no number of classes", "one from 0 on");
  return 0;
}

// The values themselves, of known classes.
std::optional<Wholes> one_hot_of(const OnnxValue& x, const OnnxValue& values, std::int64_t depth,
                                 std::int64_t inner, const Shape& shape) {
  if (x.is_tensor() || !x.wholes || !values.wholes || values.wholes->size() != 2) return {};
  if (depth == 0 || elements(shape) > kMostFolded) return {};
  Wholes result(static_cast<std::size_t>(elements(shape)), values.wholes->front());
  for (std::size_t i = 0; i < x.wholes->size(); ++i) {
    const std::int64_t at = (*x.wholes)[i];
    if (at < -depth || at >= depth) continue;  // all off
    const auto outer = static_cast<std::int64_t>(i) / inner;
    const auto rest = static_cast<std::int64_t>(i) % inner;
    const std::int64_t place = (outer * depth + (at < 0 ? at + depth : at)) * inner + rest;
    result[static_cast<std::size_t>(place)] = values.wholes->back();
  }
  return result;
}

void lower_one_hot(OnnxCall& call) {
  const std::int64_t depth = classes_of(call);
  if (!call.well()) return;
  const OnnxValue& x = call.at(0);
  const std::int64_t axis = call.axis(call.whole("axis", -1), x.rank() + 1);
  Shape shape = x.shape;
  if (!call.well()) return;
  shape.insert(shape.begin() + axis, depth);
  const ElementKind kind = call.at(2).kind;
  std::int64_t inner = 1;
  for (std::int64_t i = axis; i < x.rank(); ++i) inner *= x.shape[static_cast<std::size_t>(i)];
  call.out[0] = x.is_tensor()
                    ? call.lowering.emit(OperatorKind::unary, call, {&x}, shape, kind)
                    : constant(shape, kind, one_hot_of(x, call.at(2), depth, inner, shape));
  if (x.places.empty()) return;
  BatchPlaces places = x.places;
  places.insert(places.begin() + axis, BatchPlace());
  call.lowering.place(call.out[0], std::move(places));
}

void lower_pad(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  Wholes pads = call.has(1) ? call.known(1, "widths") : call.wholes("pads");
  if (!call.well()) return;
  Wholes axes(x.shape.size());
  std::iota(axes.begin(), axes.end(), std::int64_t{0});
  if (call.has(3)) axes = call.known(3, "axes");
  if (pads.size() != 2 * axes.size()) {
    return call.refuse(fmt::format("{} widths", pads.size()),
                       fmt::format("{}: before and after each axis", 2 * axes.size()));
  }
  Shape shape = x.shape;
  for (std::size_t i = 0; i < axes.size() && call.well(); ++i) {
    std::int64_t& size = shape[static_cast<std::size_t>(call.axis(axes[i], x.rank()))];
    size = checked_add(size, checked_add(pads[i], pads[i + axes.size()]));
    if (size < 0) return call.refuse("widths that leave less than nothing", "fewer");
  }
  if (!call.well()) return;
  if (!x.is_tensor()) {
    call.out[0] = constant(shape, x.kind);
    return;
  }
  if (shape == x.shape) {
    call.out[0] = x;
    return;
  }
  const bool plain = call.text("mode", "constant") == "constant" && elements(shape) >= x.numel();
  call.out[0] = call.lowering.emit(plain ? OperatorKind::pad : OperatorKind::unary, call, {&x},
                                   shape, x.kind);
  if (!plain) call.lowering.last().saves = Saves::input;  // reflection_pad2d saves what it reads
}

// As many or more elements, copied: the derivative reads nothing.
void emit_copy(OnnxCall& call, const Shape& shape) {
  const OnnxValue& x = call.at(0);
  call.out[0] = x.is_tensor() || x.is_weight()
                    ? call.lowering.emit(OperatorKind::unary, call, {&x}, shape, x.kind)
                    : constant(shape, x.kind);
}

void lower_tile(OnnxCall& call) {
  const Wholes times = call.known(1, "repeats");
  if (!call.well()) return;
  const OnnxValue& x = call.at(0);
  if (std::ssize(times) != x.rank()) return call.refuse("too few or many repeats", "one per axis");
  Shape shape = x.shape;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (times[i] < 0) return call.refuse("a negative repeat", "0 or more");
    shape[i] = checked_multiply(shape[i], times[i]);
  }
  if (shape == x.shape) {
    call.out[0] = x;
    return;
  }
  emit_copy(call, shape);
  if (x.places.empty()) return;
  BatchPlaces places = x.places;
  for (std::size_t i = 0; i < places.size(); ++i) places[i].outer *= times[i];
  call.lowering.place(call.out[0], std::move(places));
}

void lower_depth_to_space(OnnxCall& call) {
  const Shape& in = call.at(0).shape;
  const std::int64_t block = call.whole("blocksize", 0);
  const bool to_space = call.node.op_type == "DepthToSpace";
  if (in.size() != 4 || block < 1 || block > 65'536) {
    return call.refuse(fmt::format("blocks of {}", block), "[B,C,h,w] and a size of 1 or more");
  }
  const std::int64_t square = block * block;
  const bool fits = to_space ? in[1] % square == 0 : in[2] % block == 0 && in[3] % block == 0;
  if (!fits) return call.refuse(fmt::format("blocks of {}", block), "a divisor of the sizes");
  emit_copy(call, to_space ? Shape{in[0], in[1] / square, in[2] * block, in[3] * block}
                           : Shape{in[0], in[1] * square, in[2] / block, in[3] / block});
}

void lower_reverse(OnnxCall& call) {
  emit_copy(call, call.at(0).shape);
}

// --- Branches ---

void lower_if(OnnxCall& call) {
  const OnnxValue& condition = call.at(0);  // known: OnnxLowering::cut took the others
  const facts::OnnxAttribute* branch =
      call.attribute(condition.wholes->front() != 0 ? "then_branch" : "else_branch");
  if (branch == nullptr || branch->graph == nullptr) {
    return call.refuse("no such branch", "then_branch and else_branch");
  }
  call.lowering.inline_graph(call, *branch->graph);
}

}  // namespace

const OnnxOperators& onnx_shape_operators() {
  static const OnnxOperators kOperators = {
      {"Constant", {lower_constant, 0}},
      {"ConstantOfShape", {lower_constant_of_shape}},
      {"DepthToSpace", {lower_depth_to_space}},
      {"Expand", {lower_expand, 2}},
      {"EyeLike", {lower_eye_like}},
      {"Flatten", {lower_flatten}},
      {"If", {lower_if}},
      {"OneHot", {lower_one_hot, 3}},
      {"Pad", {lower_pad}},
      {"Range", {lower_range, 3}},
      {"Reshape", {lower_reshape, 2}},
      {"ReverseSequence", {lower_reverse, 2}},
      {"Shape", {lower_shape}},
      {"Size", {lower_size}},
      {"SpaceToDepth", {lower_depth_to_space}},
      {"Squeeze", {lower_squeeze}},
      {"Tile", {lower_tile, 2}},
      {"Transpose", {lower_transpose}},
      {"Unsqueeze", {lower_unsqueeze}},
  };
  return kOperators;
}

}  // namespace steelyard::model
