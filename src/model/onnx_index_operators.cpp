// Operators that take parts of tensors and put parts together.
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "model/onnx_lowering.h"

namespace steelyard::model {

namespace {

using Wholes = std::vector<std::int64_t>;

OnnxValue constant(Shape shape, ElementKind kind) {
  (void)elements(shape);
  OnnxValue value;
  value.shape = std::move(shape);
  value.kind = kind;
  return value;
}

// Parts and joins of weights alone stay weights until an operator reads them.
OnnxValue of_weights(Shape shape, const std::vector<const OnnxValue*>& parts) {
  OnnxValue value = constant(std::move(shape), ElementKind::real);
  for (const OnnxValue* part : parts) {
    for (const facts::OnnxTensor* tensor : part->initializers) {
      const auto& held = value.initializers;
      if (std::find(held.begin(), held.end(), tensor) == held.end()) {
        value.initializers.push_back(tensor);
      }
    }
  }
  return value;
}

// A part of a tensor is a view of its storage, a step of 1 along every dimension but those cut.
OnnxValue part_of(OnnxCall& call, const OnnxValue& x, const Shape& shape, const Shape& strides,
                  const BatchPlaces& places = {}) {
  if (x.is_weight()) return of_weights(shape, {&x});
  if (x.is_constant()) return constant(shape, x.kind);
  OnnxValue part = call.lowering.emit(OperatorKind::slice, call, {&x}, shape, x.kind);
  call.lowering.place(part, places);
  part.strides = strides;
  call.lowering.last().transposed = !lies_in_order(call.lowering.sized(shape, places), strides);
  return part;
}

// --- Slice ---

struct Cuts {
  Wholes starts, ends, axes, steps;
};

std::optional<Cuts> cuts_of(OnnxCall& call) {
  Cuts cuts;
  if (call.has(1)) {
    cuts.starts = call.known(1, "starts");
    cuts.ends = call.known(2, "ends");
    if (call.has(3)) cuts.axes = call.known(3, "axes");
    if (call.has(4)) cuts.steps = call.known(4, "steps");
  } else {
    cuts.starts = call.wholes("starts");
    cuts.ends = call.wholes("ends");
    cuts.axes = call.wholes("axes");
  }
  if (!call.well()) return std::nullopt;
  if (cuts.axes.empty()) {
    for (std::int64_t i = 0; i < std::ssize(cuts.starts); ++i) cuts.axes.push_back(i);
  }
  cuts.steps.resize(cuts.steps.empty() ? cuts.axes.size() : cuts.steps.size(), 1);
  const std::size_t count = cuts.axes.size();
  if (cuts.starts.size() == count && cuts.ends.size() == count && cuts.steps.size() == count) {
    return cuts;
  }
  call.refuse("starts, ends, axes and steps of different numbers", "as many of each");
  return std::nullopt;
}

struct Cut {
  std::int64_t from = 0, count = 0, step = 1;
};

// numpy's x[start:end:step].
Cut cut_of(std::int64_t size, std::int64_t start, std::int64_t end, std::int64_t step) {
  const auto placed = [size](std::int64_t at) { return at < 0 ? at + size : at; };
  Cut cut;
  cut.step = step;
  if (step > 0) {
    cut.from = std::clamp<std::int64_t>(placed(start), 0, size);
    const std::int64_t to = std::clamp<std::int64_t>(placed(end), 0, size);
    cut.count = to > cut.from ? (to - cut.from - 1) / step + 1 : 0;
  } else {
    cut.from = std::clamp<std::int64_t>(placed(start), -1, size - 1);
    const std::int64_t to = end < -size ? -1 : std::clamp<std::int64_t>(placed(end), -1, size - 1);
    cut.count = cut.from > to ? (cut.from - to - 1) / -std::max(step, -size - 1) + 1 : 0;
  }
  return cut;
}

// Of a dimension of the batch only whole batches can be taken.
bool cut_place(OnnxCall& call, BatchPlace& place, std::int64_t size, const Cut& cut) {
  if (!place.there() || cut.count == size) return true;
  const auto part = cut.step == 1
                        ? place_of_part(place, cut.from, cut.count, call.lowering.fixed_batch)
                        : std::nullopt;
  if (part) {
    place = *part;
  } else {
    call.lowering.refuse_batch(call, fmt::format("cut to {} of {}", cut.count, size));
  }
  return part.has_value();
}

void lower_slice(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  const auto cuts = cuts_of(call);
  if (!cuts) return;
  Shape shape = x.shape;
  Shape strides = x.is_tensor() ? x.strides : contiguous_strides(x.shape);
  const Shape before = strides;
  std::int64_t offset = 0;
  bool backwards = false;
  BatchPlaces places = x.places;
  for (std::size_t i = 0; i < cuts->axes.size(); ++i) {
    const auto axis = static_cast<std::size_t>(call.axis(cuts->axes[i], x.rank()));
    if (!call.well()) return;
    if (cuts->steps[i] == 0 || cuts->steps[i] == std::numeric_limits<std::int64_t>::min()) {
      return call.refuse(fmt::format("a step of {}", cuts->steps[i]), "any other step");
    }
    const Cut cut = cut_of(x.shape[axis], cuts->starts[i], cuts->ends[i], cuts->steps[i]);
    shape[axis] = cut.count;
    backwards = backwards || cut.step < 0;
    if (!places.empty() && !cut_place(call, places[axis], x.shape[axis], cut)) return;
    if (cut.count > 0) offset += cut.from * before[axis];
    if (cut.count > 1) strides[axis] = checked_multiply(before[axis], cut.step);
  }
  if (x.wholes) {
    call.out[0] = constant(shape, x.kind);
    call.out[0].wholes = rearranged(*x.wholes, shape, strides, offset);
    return;
  }
  if (shape == x.shape && !backwards) {
    call.out[0] = x;
    return;
  }
  if (backwards && x.is_tensor()) {  // torch.flip copies
    call.out[0] = call.lowering.emit(OperatorKind::unary, call, {&x}, shape, x.kind);
    return;
  }
  call.out[0] = part_of(call, x, shape, strides, places);
}

// Parts of these sizes along the axis, whose sum is the size.
std::vector<OnnxValue> parts_of(OnnxCall& call, const OnnxValue& x, std::size_t axis,
                                const Wholes& sizes) {
  std::vector<OnnxValue> parts;
  if (x.is_tensor()) call.lowering.append(OperatorKind::split, call, {x.ref});
  std::int64_t from = 0;
  for (const std::int64_t size : sizes) {
    Shape shape = x.shape;
    shape[axis] = size;
    const Cut cut{from, size, 1};
    from += size;
    if (!x.is_tensor()) {
      parts.push_back(part_of(call, x, shape, {}));
      if (!x.wholes || x.rank() != 1) continue;
      parts.back().wholes = Wholes(x.wholes->begin() + cut.from, x.wholes->begin() + from);
      continue;
    }
    BatchPlaces places = x.places;
    if (!places.empty() && !cut_place(call, places[axis], x.shape[axis], cut)) return {};
    OnnxValue& part = parts.emplace_back(call.lowering.result(call, shape, x.kind));
    call.lowering.place(part, std::move(places));
    part.strides = x.strides;
    part.differentiable = x.differentiable;
    part.of_data = x.of_data;
  }
  return parts;
}

// Sizes that are given, or `parts` equal ones, or ones of `each`, the last one smaller.
std::optional<Wholes> sizes_of_parts(OnnxCall& call, std::int64_t whole, Wholes sizes,
                                     std::int64_t each) {
  std::int64_t left = whole;
  for (const std::int64_t size : sizes) left = size < 0 || size > left ? -1 : left - size;
  constexpr std::int64_t kMostParts = 65'536;
  for (; sizes.empty() && each > 0 && whole / each < kMostParts && left > 0;) {
    Wholes equal;
    for (; left > 0; left -= equal.back()) equal.push_back(std::min(each, left));
    sizes = std::move(equal);
  }
  if (left == 0 && !sizes.empty()) return sizes;
  call.refuse(fmt::format("parts {}", text_of(sizes)), "parts whose sum is the size");
  return std::nullopt;
}

void lower_split(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  const auto axis = static_cast<std::size_t>(call.axis(call.whole("axis", 0), x.rank()));
  if (!call.well()) return;
  const Wholes given = call.has(1) ? call.known(1, "sizes") : call.wholes("split");
  if (!call.well()) return;
  const auto parts = static_cast<std::int64_t>(call.out.size());
  const auto sizes =
      sizes_of_parts(call, x.shape[axis], given, (x.shape[axis] + parts - 1) / parts);
  if (!sizes) return;
  if (std::ssize(*sizes) != parts) {
    return call.refuse(fmt::format("parts {}", text_of(*sizes)), "one for each output");
  }
  std::vector<OnnxValue> made = parts_of(call, x, axis, *sizes);
  if (call.well()) call.out = std::move(made);
}

// torch.split in dynamo's exports: all parts as one value, of which SequenceAt takes one.
void lower_split_to_sequence(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  const auto axis = static_cast<std::size_t>(call.axis(call.whole("axis", 0), x.rank()));
  if (!call.well()) return;
  Wholes given = call.has(1) ? call.known(1, "sizes") : Wholes{1};
  if (!call.well()) return;
  if (!call.has(1) && call.whole("keepdims", 1) == 0) {
    return call.refuse("parts without their dimension", "keepdims = 1");
  }
  std::int64_t each = 0;
  if ((!call.has(1) || call.at(1).rank() == 0) && given.size() == 1) {
    each = given.front();
    given.clear();
  }
  const auto sizes = sizes_of_parts(call, x.shape[axis], given, each);
  if (!sizes) return;
  std::vector<OnnxValue> made = parts_of(call, x, axis, *sizes);
  if (!call.well()) return;
  call.out[0] = OnnxValue();
  call.out[0].sequence = std::make_shared<const std::vector<OnnxValue>>(std::move(made));
}

// Along a dimension of the batch: as many batches as in all parts, if they are alike.
BatchPlace joined_place(OnnxCall& call, const std::vector<OnnxValue>& parts, std::size_t axis) {
  BatchPlace whole;
  for (const OnnxValue& part : parts) {
    const BatchPlace own = part.places.empty() ? BatchPlace() : part.places[axis];
    if (&part == &parts.front()) {
      whole = own;
    } else if (own.there() != whole.there() || own.inner != whole.inner) {
      call.lowering.refuse_batch(call, "joined with what has none");
    } else {
      whole.outer += own.outer;
    }
  }
  return whole;
}

void join(OnnxCall& call, const std::vector<const OnnxValue*>& parts, const Shape& shape,
          std::size_t axis) {
  std::vector<OnnxValue> operands;
  for (const OnnxValue* part : parts) operands.push_back(*part);
  call.lowering.meet(call, operands, {.but_for = axis});
  std::vector<const OnnxValue*> refs;
  for (const OnnxValue& operand : operands) refs.push_back(&operand);
  OnnxValue out = call.lowering.emit(OperatorKind::concatenate, call, refs, shape, call.at(0).kind);
  if (!out.places.empty() || call.lowering.moves_batch()) {
    BatchPlaces places = out.places;
    places.resize(shape.size());
    places[axis] = joined_place(call, operands, axis);
    call.lowering.place(out, std::move(places));
  }
  call.out[0] = std::move(out);
}

void lower_concat(OnnxCall& call) {
  const OnnxValue& first = call.at(0);
  const auto axis = static_cast<std::size_t>(call.axis(call.whole("axis", 0), first.rank()));
  if (!call.well()) return;
  Shape shape = first.shape;
  shape[axis] = 0;
  bool constants = true, weights = true;
  bool known = first.rank() == 1, known_reals = first.rank() == 1;
  std::vector<const OnnxValue*> parts;
  for (std::size_t i = 0; i < call.in.size(); ++i) {
    if (!call.has(i)) return call.refuse("an operand that is not there", "tensors");
    const OnnxValue& part = call.at(i);
    Shape rest = part.shape;
    if (rest.size() == shape.size()) {
      shape[axis] = checked_add(shape[axis], rest[axis]);
      rest[axis] = shape[axis];
    }
    if (rest != shape) return call.refuse("shapes that do not meet", "equal but for the axis");
    constants = constants && part.is_constant();
    weights = weights && part.is_weight();
    known = known && part.wholes.has_value();
    known_reals = known_reals && part.reals.has_value();
    if (part.numel() > 0) parts.push_back(&part);
  }
  if (known && shape[axis] <= kMostFolded) {
    call.out[0] = constant(shape, first.kind);
    call.out[0].wholes.emplace();
    for (const OnnxValue* part : parts) {
      call.out[0].wholes->insert(call.out[0].wholes->end(), part->wholes->begin(),
                                 part->wholes->end());
    }
  } else if (constants || parts.empty()) {
    call.out[0] = constant(shape, first.kind);
    if (!known_reals || shape[axis] > kMostFolded) return;
    call.out[0].reals.emplace();
    for (const OnnxValue* part : parts) {
      call.out[0].reals->insert(call.out[0].reals->end(), part->reals->begin(), part->reals->end());
    }
  } else if (weights) {
    call.out[0] = of_weights(shape, parts);
  } else if (parts.size() == 1) {
    call.out[0] = *parts.front();
  } else {
    join(call, parts, shape, axis);
  }
}

// --- By index ---

// Of a shape's sizes: the indices are known too.
bool folds_gather(OnnxCall& call, const Shape& shape) {
  const OnnxValue& x = call.at(0);
  const OnnxValue& indices = call.at(1);
  if (!x.wholes || !indices.wholes || x.rank() != 1) return false;
  OnnxValue out = constant(shape, x.kind);
  out.wholes.emplace();
  for (const std::int64_t index : *indices.wholes) {
    const std::int64_t at = call.axis(index, x.shape.front());
    if (!call.well()) return true;
    out.wholes->push_back((*x.wholes)[static_cast<std::size_t>(at)]);
  }
  call.out[0] = std::move(out);
  return true;
}

// The indices' dimensions stand where the one was that they choose from.
void place_gathered(OnnxCall& call, std::size_t axis) {
  const OnnxValue& x = call.at(0);
  const OnnxValue& indices = call.at(1);
  if (!call.lowering.moves_batch()) return;
  BatchPlaces own = x.places, chosen = indices.places;
  own.resize(x.shape.size());
  chosen.resize(indices.shape.size());
  // x[arange(B) * S + last]: one index for each sample.
  const bool of_batch = !indices.places.empty();
  if (own[axis].there() && !of_batch) {
    return call.lowering.refuse_batch(call, "chosen from by index");
  }
  own.erase(own.begin() + static_cast<std::ptrdiff_t>(axis));
  own.insert(own.begin() + static_cast<std::ptrdiff_t>(axis), chosen.begin(), chosen.end());
  call.lowering.place(call.out[0], std::move(own));
}

void lower_gather(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  const OnnxValue& indices = call.at(1);
  const auto axis = static_cast<std::size_t>(call.axis(call.whole("axis", 0), x.rank()));
  if (!call.well()) return;
  Shape shape(x.shape.begin(), x.shape.begin() + static_cast<std::ptrdiff_t>(axis));
  shape.insert(shape.end(), indices.shape.begin(), indices.shape.end());
  shape.insert(shape.end(), x.shape.begin() + static_cast<std::ptrdiff_t>(axis) + 1, x.shape.end());
  if (folds_gather(call, shape)) return;
  if (x.is_constant() && !indices.is_tensor()) {
    call.out[0] = constant(shape, x.kind);
    return;
  }
  const bool table = x.is_weight() && x.initializers.size() == 1 && x.rank() == 2 && axis == 0 &&
                     x.shape == x.initializers.front()->dims;
  if (table && (indices.is_tensor() || indices.rank() == 2)) {
    std::vector<TensorRef> ids;
    if (indices.is_tensor()) ids.push_back(indices.ref);
    call.lowering.append(ids.empty() ? OperatorKind::position_embedding : OperatorKind::embedding,
                         call, ids);
    call.lowering.last().weights = {call.lowering.weight(x, WeightRole::embedding)};
    call.out[0] = call.lowering.result(call, shape);
    place_gathered(call, axis);
    return;
  }
  if (x.is_tensor() && indices.is_constant() && indices.rank() == 0) {  // x.select(): a view
    Shape strides = x.strides;
    strides.erase(strides.begin() + static_cast<std::ptrdiff_t>(axis));
    BatchPlaces places = x.places;
    if (!places.empty()) places.erase(places.begin() + static_cast<std::ptrdiff_t>(axis));
    call.out[0] = part_of(call, x, shape, strides, places);
    return;
  }
  std::vector<const OnnxValue*> operands = {&x};
  if (indices.is_tensor()) operands.push_back(&indices);
  call.out[0] = call.lowering.emit(OperatorKind::gather, call, operands, shape, x.kind);
  place_gathered(call, axis);
}

void lower_gather_elements(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  const OnnxValue& indices = call.at(1);
  Shape shape = indices.shape;
  if (call.node.op_type == "GatherND") {
    const std::int64_t beside = call.whole("batch_dims", 0);
    if (shape.empty() || beside < 0 || shape.back() < 0 || shape.back() > x.rank() ||
        beside + shape.back() > x.rank()) {
      return call.refuse("indices longer than the dimensions", "at most as many as there are");
    }
    const std::int64_t depth = beside + shape.back();
    shape.pop_back();
    shape.insert(shape.end(), x.shape.begin() + depth, x.shape.end());
  }
  if (!x.is_tensor() && !x.is_weight() && !indices.is_tensor()) {
    call.out[0] = constant(shape, x.kind);
    return;
  }
  std::vector<const OnnxValue*> operands = {&x};
  if (indices.is_tensor()) operands.push_back(&indices);
  call.out[0] = call.lowering.emit(OperatorKind::gather, call, operands, shape, x.kind);
  if (!call.lowering.moves_batch()) return;
  BatchPlaces places = indices.places;
  places.resize(shape.size());
  if (call.node.op_type == "GatherND" && !x.places.empty()) {
    const std::size_t kept = shape.size() - std::min(shape.size(), indices.shape.size() - 1);
    const std::size_t from = x.places.size() - std::min(x.places.size(), kept);
    std::copy(x.places.begin() + static_cast<std::ptrdiff_t>(from), x.places.end(),
              places.end() - static_cast<std::ptrdiff_t>(x.places.size() - from));
  }
  call.lowering.place(call.out[0], std::move(places));
}

void lower_scatter(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  const OnnxValue& indices = call.at(1);
  const OnnxValue& updates = call.at(2);
  if (x.is_constant() && updates.is_constant()) {
    call.out[0] = constant(x.shape, x.kind);
    return;
  }
  std::vector<const OnnxValue*> operands = {&x, &updates};
  if (indices.is_tensor()) operands.push_back(&indices);
  call.out[0] = call.lowering.emit(OperatorKind::scatter, call, operands, x.shape, x.kind);
}

void lower_top_k(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  const Wholes k = call.has(1) ? call.known(1, "numbers of elements") : Wholes{call.whole("k", -1)};
  if (!call.well()) return;
  const auto axis = static_cast<std::size_t>(call.axis(call.whole("axis", -1), x.rank()));
  if (!call.well()) return;
  if (k.size() != 1 || k.front() < 0 || k.front() > x.shape[axis]) {
    return call.refuse(fmt::format("the {} largest", text_of(k)), "at most as many as there are");
  }
  Shape shape = x.shape;
  shape[axis] = k.front();
  if (!x.is_tensor()) {
    call.out[0] = constant(shape, x.kind);
    if (call.out.size() > 1) call.out[1] = constant(shape, ElementKind::index);
    return;
  }
  call.out[0] = call.lowering.emit(OperatorKind::top, call, {&x}, shape, x.kind);
  OnnxValue places = call.lowering.result(call, shape, ElementKind::index);
  call.lowering.place(places, call.out[0].places);
  if (call.out.size() > 1) call.out[1] = std::move(places);
}

}  // namespace

const OnnxOperators& onnx_index_operators() {
  static const OnnxOperators kOperators = {
      {"Compress", {nullptr, 0}},
      {"Concat", {lower_concat}},
      {"Gather", {lower_gather, 2}},
      {"GatherElements", {lower_gather_elements, 2}},
      {"GatherND", {lower_gather_elements, 2}},
      {"Loop", {nullptr, 0}},
      {"NonMaxSuppression", {nullptr, 0}},
      {"NonZero", {nullptr, 0}},
      {"Scan", {nullptr, 0}},
      {"Scatter", {lower_scatter, 3}},
      {"ScatterElements", {lower_scatter, 3}},
      {"ScatterND", {lower_scatter, 3}},
      {"Slice", {lower_slice}},
      {"Split", {lower_split}},
      {"SplitToSequence", {lower_split_to_sequence}},
      {"TopK", {lower_top_k}},
      {"Unique", {nullptr, 0}},
  };
  return kOperators;
}

}  // namespace steelyard::model
