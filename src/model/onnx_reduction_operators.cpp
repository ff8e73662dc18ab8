// Operators that make one element of a row: sums, means, extremes and where they are.
#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "model/onnx_lowering.h"

namespace steelyard::model {

namespace {

using Wholes = std::vector<std::int64_t>;

std::vector<std::int64_t> axes_of(OnnxCall& call) {
  std::vector<std::int64_t> axes = call.wholes("axes");
  if (call.has(1)) axes = call.known(1, "axes");
  for (std::int64_t& axis : axes) axis = call.axis(axis, call.at(0).rank());
  if (axes.empty() && call.whole("noop_with_empty_axes", 0) == 0) {
    for (std::int64_t i = 0; i < call.at(0).rank(); ++i) axes.push_back(i);
  }
  return axes;
}

Shape reduced(const OnnxCall& call, const std::vector<std::int64_t>& axes) {
  const Shape& in = call.at(0).shape;
  const bool keeps = call.whole("keepdims", 1) != 0;
  Shape out;
  for (std::size_t i = 0; i < in.size(); ++i) {
    const bool goes = std::count(axes.begin(), axes.end(), static_cast<std::int64_t>(i)) > 0;
    if (!goes) out.push_back(in[i]);
    if (goes && keeps) out.push_back(1);
  }
  return out;
}

// The batch stays where its dimension does.
void place_reduced(OnnxCall& call, const std::vector<std::int64_t>& axes) {
  const BatchPlaces& in = call.at(0).places;
  if (in.empty()) return;
  const bool keeps = call.whole("keepdims", 1) != 0;
  BatchPlaces out;
  for (std::size_t i = 0; i < in.size(); ++i) {
    const bool goes = std::count(axes.begin(), axes.end(), static_cast<std::int64_t>(i)) > 0;
    if (!goes || keeps) out.push_back(goes ? BatchPlace() : in[i]);
  }
  call.lowering.place(call.out[0], std::move(out));
}

// All of a list of sizes: their product, largest, smallest or sum; nothing beyond 64 bits.
std::optional<std::int64_t> fold_reduction(const std::string& kind, const Wholes& values) {
  if (values.empty()) return std::nullopt;
  if (kind == "ReduceMax") return *std::max_element(values.begin(), values.end());
  if (kind == "ReduceMin") return *std::min_element(values.begin(), values.end());
  std::int64_t all = values.front();
  for (std::size_t i = 1; i < values.size(); ++i) {
    const bool beyond = kind == "ReduceProd" ? __builtin_mul_overflow(all, values[i], &all)
                                             : __builtin_add_overflow(all, values[i], &all);
    if (beyond) return std::nullopt;
  }
  return all;
}

void lower_reduction(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  const std::string& type = call.node.op_type;
  const std::vector<std::int64_t> axes = axes_of(call);
  if (!call.well()) return;
  const Shape shape = reduced(call, axes);
  if (x.is_constant()) {
    call.out[0] = constant_like(shape, x.kind);
    const bool folds =
        type == "ReduceProd" || type == "ReduceMax" || type == "ReduceMin" || type == "ReduceSum";
    if (!folds || call.out[0].numel() != 1) return;
    const auto all = x.wholes ? fold_reduction(type, *x.wholes) : std::nullopt;
    if (all) call.out[0].wholes = Wholes{*all};
    // Sizes that were made real on their way: torchvision's largest picture of a batch.
    const bool extreme = type == "ReduceMax" || type == "ReduceMin";
    if (!x.reals || x.reals->empty() || !extreme) return;
    const auto [least, most] = std::minmax_element(x.reals->begin(), x.reals->end());
    call.out[0].reals = std::vector<double>{type == "ReduceMax" ? *most : *least};
    return;
  }
  call.out[0] = call.lowering.emit(OperatorKind::reduce, call, {&x}, shape, x.kind);
  place_reduced(call, axes);
  Operator& op = call.lowering.last();
  const bool plain = type == "ReduceMean" || type == "ReduceSum";
  op.saves = plain ? Saves::nothing
             : type == "ReduceL1" || type == "ReduceSumSquare" || type == "ReduceLogSum"
                 ? Saves::input
                 : Saves::both;
  op.wide = type == "ReduceProd" || type == "ReduceSum" || type == "ReduceL2";
}

void lower_arg(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  const std::int64_t axis = call.axis(call.whole("axis", 0), x.rank());
  if (!call.well()) return;
  const Shape shape = reduced(call, {axis});
  if (!x.is_tensor()) {
    call.out[0] = constant_like(shape, ElementKind::index);
    return;
  }
  call.out[0] = call.lowering.emit(OperatorKind::reduce, call, {&x}, shape, ElementKind::index);
  place_reduced(call, {axis});
}

// A limit of Clip, from an input or (before operator set 11) an attribute.
std::optional<double> limit_of(const OnnxCall& call, std::size_t i, const char* name) {
  if (!call.has(i)) {
    const facts::OnnxAttribute* attribute = call.attribute(name);
    return attribute != nullptr ? attribute->real : std::nullopt;
  }
  const OnnxValue& value = call.at(i);
  if (value.reals && value.reals->size() == 1) return value.reals->front();
  if (value.wholes && value.wholes->size() == 1) {
    return static_cast<double>(value.wholes->front());
  }
  return std::nullopt;
}

}  // namespace

const OnnxOperators& onnx_reduction_operators() {
  static const OnnxOperators kOperators = [] {
    OnnxOperators all;
    for (const char* name :
         {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
          "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"}) {
      all[name] = {lower_reduction};
    }
    all["ArgMax"] = all["ArgMin"] = {lower_arg};
    return all;
  }();
  return kOperators;
}

void fold_onnx_clip(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  const std::optional<double> low = limit_of(call, 1, "min"), high = limit_of(call, 2, "max");
  if ((call.has(1) && !low) || (call.has(2) && !high)) return;  // not known
  const auto clipped = [&](auto values) {
    for (auto& value : values) {
      using Number = std::remove_reference_t<decltype(value)>;
      if (low && static_cast<double>(value) < *low) value = static_cast<Number>(*low);
      if (high && static_cast<double>(value) > *high) value = static_cast<Number>(*high);
    }
    return values;
  };
  const auto fits = [](std::optional<double> limit) { return !limit || std::abs(*limit) < 9.2e18; };
  if (x.reals) call.out[0].reals = clipped(*x.reals);
  if (x.wholes && fits(low) && fits(high)) call.out[0].wholes = clipped(*x.wholes);
}

}  // namespace steelyard::model
