// Convolutions, pools and normalisations.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "model/onnx_lowering.h"

namespace steelyard::model {

namespace {

using Wholes = std::vector<std::int64_t>;

constexpr std::int64_t kLargestStep = 1'000'000;  // of a window, a stride, a padding

// Where windows of a convolution or pool stand, per dimension behind the channels.
struct Windows {
  Wholes kernel, strides, dilations, before, after;
  bool rounds_up = false;
};

std::optional<Windows> windows_of(OnnxCall& call, Wholes kernel) {
  const std::size_t count = kernel.size();
  Windows windows;
  windows.kernel = std::move(kernel);
  windows.strides = call.wholes("strides");
  windows.dilations = call.wholes("dilations");
  if (windows.strides.empty()) windows.strides.assign(count, 1);
  if (windows.dilations.empty()) windows.dilations.assign(count, 1);
  Wholes pads = call.wholes("pads");
  if (pads.empty()) pads.assign(2 * count, 0);
  windows.rounds_up = call.whole("ceil_mode", 0) != 0;
  const auto within = [](const Wholes& values, std::int64_t least) {
    return std::all_of(values.begin(), values.end(),
                       [least](std::int64_t v) { return v >= least && v <= kLargestStep; });
  };
  const bool fits = count > 0 && call.at(0).rank() == static_cast<std::int64_t>(count) + 2 &&
                    windows.strides.size() == count && windows.dilations.size() == count &&
                    pads.size() == 2 * count && within(windows.kernel, 1) &&
                    within(windows.strides, 1) && within(windows.dilations, 1) && within(pads, 0);
  if (!fits) {
    call.refuse(fmt::format("windows of {}", text_of(windows.kernel)),
                "[B,C,...] and one window, stride, dilation and two paddings per dimension");
    return std::nullopt;
  }
  windows.before = Wholes(pads.begin(), pads.begin() + static_cast<std::ptrdiff_t>(count));
  windows.after = Wholes(pads.begin() + static_cast<std::ptrdiff_t>(count), pads.end());
  return windows;
}

// The result's picture, behind batch and channels.
std::optional<Shape> windows_in(OnnxCall& call, const Windows& w, std::int64_t channels) {
  const Shape& in = call.at(0).shape;
  const std::string automatic = call.text("auto_pad", "NOTSET");
  Shape out = {in[0], channels};
  for (std::size_t i = 0; i < w.kernel.size(); ++i) {
    const std::int64_t size = in[i + 2];
    if (automatic.starts_with("SAME")) {
      out.push_back((size + w.strides[i] - 1) / w.strides[i]);
      continue;
    }
    const bool valid = automatic == "VALID";
    const std::int64_t pads = valid ? 0 : w.before[i] + w.after[i];
    const std::int64_t room = checked_add(size, pads) - (w.dilations[i] * (w.kernel[i] - 1) + 1);
    if (room < 0) {
      call.refuse(fmt::format("a window of {} over {}", w.kernel[i], size),
                  "windows no larger than the padded picture", "is train.image_size large enough?");
      return std::nullopt;
    }
    std::int64_t steps =
        w.rounds_up ? (room + w.strides[i] - 1) / w.strides[i] : room / w.strides[i];
    // A window that would start in the padding behind is left out, as PyTorch does.
    if (w.rounds_up && steps * w.strides[i] >= size + w.before[i]) --steps;
    out.push_back(steps + 1);
  }
  return out;
}

// Those in the places of a weight and a bias that the file stores.
std::vector<std::int32_t> weights_of(OnnxCall& call, WeightRole first, std::size_t from = 1) {
  std::vector<std::int32_t> weights;
  for (std::size_t i = from; i <= 2; ++i) {
    const bool there = call.has(i) && call.at(i).is_weight();
    if (there)
      weights.push_back(call.lowering.weight(call.at(i), i == 1 ? first : WeightRole::bias));
  }
  return weights;
}

void lower_conv(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  const OnnxValue& w = call.at(1);
  const bool transposed = call.node.op_type == "ConvTranspose";
  const std::int64_t groups = call.whole("group", 1);
  const bool meets = w.rank() >= 3 && x.rank() == w.rank() && groups >= 1 && groups <= x.shape[1] &&
                     x.shape[1] % groups == 0 &&
                     (transposed ? w.shape[0] == x.shape[1]
                                 : w.shape[1] == x.shape[1] / groups && w.shape[0] % groups == 0);
  // weight_norm, standardized weights: a tensor like another.
  const bool computed = w.is_tensor() || w.initializers.size() > 1;
  if (!meets || w.is_constant()) {
    return call.refuse(fmt::format("a weight that does not fit {} groups", groups),
                       "X [B,C,...] and a stored weight [O,C/groups,...]");
  }
  const auto windows = windows_of(call, Wholes(w.shape.begin() + 2, w.shape.end()));
  if (!windows) return;
  const std::int64_t channels = transposed ? checked_multiply(w.shape[1], groups) : w.shape[0];
  std::optional<Shape> shape;
  if (!transposed) {
    shape = windows_in(call, *windows, channels);
  } else {
    shape = Shape{x.shape[0], channels};
    const Wholes asked = call.wholes("output_shape");
    Wholes more = call.wholes("output_padding");
    more.resize(windows->kernel.size(), 0);
    for (std::size_t i = 0; i < windows->kernel.size(); ++i) {
      const std::int64_t whole = windows->dilations[i] * (windows->kernel[i] - 1) + 1;
      const std::int64_t size = checked_multiply(windows->strides[i], x.shape[i + 2] - 1) +
                                more[i] + whole - windows->before[i] - windows->after[i];
      shape->push_back(i < asked.size() ? asked[i] : size);
      if (shape->back() < 1) return call.refuse("a result without pixels", "a larger picture");
    }
  }
  if (!shape) return;
  std::vector<std::int32_t> weights = weights_of(call, WeightRole::matrix, computed ? 2 : 1);
  std::vector<const OnnxValue*> inputs = {&x};
  if (computed) inputs.push_back(&w);
  call.out[0] = call.lowering.emit(OperatorKind::conv, call, inputs, *shape);
  Operator& op = call.lowering.last();
  op.weights = std::move(weights);
  op.groups = groups;
  op.transposed = transposed;
  call.out[0].differentiable = call.out[0].of_data = true;
}

// torch.fold: the sum of overlapping blocks [B,C*k,L] as pictures [B,C,h,w].
void lower_col2im(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  const Wholes picture = call.known(1, "sizes of the picture");
  const Wholes block = call.known(2, "sizes of the blocks");
  if (!call.well()) return;
  const auto positive = [](std::int64_t size) { return size >= 1 && size <= kLargestStep; };
  const bool fits =
      x.rank() == 3 && x.is_tensor() && !picture.empty() && picture.size() == block.size() &&
      std::all_of(picture.begin(), picture.end(), positive) &&
      std::all_of(block.begin(), block.end(), positive) && x.shape[1] % elements(block) == 0;
  if (!fits) {
    return call.refuse("blocks that do not fit", "X [B,C*k,L], a picture's sizes and a block's");
  }
  Shape shape = {x.shape[0], x.shape[1] / elements(block)};
  shape.insert(shape.end(), picture.begin(), picture.end());
  call.out[0] = call.lowering.emit(OperatorKind::reduce, call, {&x}, std::move(shape));
  call.lowering.last().saves = Saves::nothing;
  if (!call.lowering.moves_batch()) return;
  BatchPlaces places(call.out[0].shape.size());
  if (!x.places.empty()) places.front() = x.places.front();
  call.lowering.place(call.out[0], std::move(places));
}

void lower_pool(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  const std::string& type = call.node.op_type;
  const auto windows = windows_of(call, call.wholes("kernel_shape"));
  if (!windows) return;
  const auto shape = windows_in(call, *windows, x.shape[1]);
  if (!shape) return;
  const OperatorKind kind = type == "MaxPool"       ? OperatorKind::max_pool
                            : type == "AveragePool" ? OperatorKind::average_pool
                                                    : OperatorKind::unary;
  call.out[0] = call.lowering.emit(kind, call, {&x}, *shape);
  if (kind == OperatorKind::unary) call.lowering.last().saves = Saves::both;  // LpPool
  if (call.out.size() > 1) {
    call.out[1].shape = *shape;
    call.out[1].kind = ElementKind::index;
  }
}

void lower_global_pool(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  if (x.rank() < 3 || !x.is_tensor()) return call.refuse("no picture", "[B,C,...]");
  Shape shape(x.shape.size(), 1);
  shape[0] = x.shape[0];
  shape[1] = x.shape[1];
  if (call.node.op_type == "GlobalAveragePool") {  // adaptive_avg_pool2d to one pixel is a mean
    call.out[0] = call.lowering.emit(OperatorKind::global_average_pool, call, {&x}, shape);
    return;
  }
  call.out[0] = call.lowering.emit(OperatorKind::reduce, call, {&x}, shape);
  call.lowering.last().saves = Saves::both;
}

// --- Normalisations ---

void lower_batch_norm(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  const bool fits = x.rank() >= 2 && call.has(1) && call.at(1).shape == Shape{x.shape[1]} &&
                    call.has(2) && call.at(2).shape == Shape{x.shape[1]};
  if (!fits || x.is_constant()) {
    return call.refuse("scale or bias that do not fit", "a number for each channel");
  }
  // Scale and bias that are not stored are operands; numbers that do not train are none.
  const OnnxValue &scale = call.at(1), &bias = call.at(2);
  const bool stored = scale.is_weight() && bias.is_weight();
  const bool trains = !scale.is_constant() || !bias.is_constant();
  for (std::size_t i = 3; i <= 4 && call.has(i); ++i) call.lowering.add_buffer(call.at(i));
  std::vector<const OnnxValue*> inputs = {&x};
  if (trains && !stored) inputs.insert(inputs.end(), {&scale, &bias});
  std::vector<std::int32_t> weights;
  if (stored) weights = weights_of(call, WeightRole::norm);
  call.out[0] = call.lowering.emit(OperatorKind::batch_norm, call, inputs, x.shape);
  call.lowering.last().weights = std::move(weights);
  if (stored) call.out[0].differentiable = call.out[0].of_data = true;
  for (std::size_t i = 1; i < call.out.size(); ++i) call.out[i].shape = {x.shape[1]};
}

// Over all dimensions from the axis on, which the operator sees as one.
void lower_layer_norm(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  const std::int64_t axis = call.axis(call.whole("axis", -1), x.rank());
  if (!call.well()) return;
  const Shape last(x.shape.begin() + axis, x.shape.end());
  Shape rows(x.shape.begin(), x.shape.begin() + axis);
  rows.push_back(elements(last));
  const bool rms = call.node.op_type == "RMSNormalization";
  for (std::size_t i = 1; i <= 2 && i < call.in.size(); ++i) {
    if (call.has(i) && call.at(i).numel() != elements(last)) {
      return call.refuse("a scale that does not fit", "a number for each element of a row");
    }
  }
  if (rms && !(call.has(1) && call.at(1).is_weight())) {
    return call.refuse("no weight", "a stored scale");
  }
  const OnnxValue in = call.lowering.viewed(call, x, rows);
  std::vector<std::int32_t> weights = weights_of(call, WeightRole::norm);
  OnnxValue out = call.lowering.emit(rms ? OperatorKind::rms_norm : OperatorKind::layer_norm, call,
                                     {&in}, rows);
  call.lowering.last().weights = std::move(weights);
  out.differentiable = out.of_data = true;
  call.out[0] = call.lowering.viewed(call, out, x.shape);
  for (std::size_t i = 1; i < call.out.size(); ++i) {
    call.out[i].shape = x.shape;
    std::fill(call.out[i].shape.begin() + axis, call.out[i].shape.end(), 1);
  }
}

void lower_group_norm(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  const bool instance = call.node.op_type == "InstanceNormalization";
  if (x.rank() < 2 || !x.is_tensor()) return call.refuse("no picture", "[B,C,...]");
  const std::int64_t groups = instance ? x.shape[1] : call.whole("num_groups", 1);
  if (groups < 1 || groups > x.shape[1] || x.shape[1] % groups != 0) {
    return call.refuse(fmt::format("{} groups", groups), "a divisor of the channels");
  }
  const auto whole = [&](std::size_t i) {
    // One for each channel ([C], [C,1,1]), or for each group (set 18).
    const std::int64_t count = call.has(i) && call.at(i).is_weight() ? call.at(i).numel() : 0;
    return count > 0 && (count == x.shape[1] || count == groups);
  };
  const OnnxValue in = call.lowering.ordered(call, x);
  std::vector<std::int32_t> weights;
  if (whole(1) && whole(2)) weights = weights_of(call, WeightRole::norm);
  call.out[0] = call.lowering.emit(OperatorKind::group_norm, call, {&in}, x.shape);
  call.lowering.last().weights = std::move(weights);
  call.lowering.last().groups = groups;
}

void lower_softmax(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  const std::int64_t fallback = call.version < 13 ? 1 : -1;
  if (x.rank() > 0) (void)call.axis(call.whole("axis", fallback), x.rank());
  if (!call.well()) return;
  if (x.is_constant()) {
    call.out[0].shape = x.shape;
    return;
  }
  call.out[0] = call.lowering.emit(OperatorKind::softmax, call, {&x}, x.shape);
}

// Sums of squares and the like over rows, then a division: saves its input and the norm.
void lower_row_norm(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  call.out[0] = call.lowering.emit(OperatorKind::unary, call, {&x}, x.shape);
  call.lowering.last().saves = Saves::both;
}

// --- Resize ---

std::optional<Shape> resized(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  if (call.has(3)) {
    Wholes sizes = call.known(3, "sizes");
    return call.well() && std::ssize(sizes) == x.rank() ? std::optional(sizes) : std::nullopt;
  }
  const facts::OnnxAttribute* old = call.attribute("scales");  // Upsample-7
  const std::size_t place = call.in.size() > 2 ? 2 : 1;        // Resize-11: roi lies between
  std::optional<std::vector<double>> scales;
  if (old != nullptr && !old->reals.empty()) scales = old->reals;
  if (call.has(place)) scales = call.at(place).reals;
  if (!scales || std::ssize(*scales) != x.rank()) return std::nullopt;
  Shape shape;
  for (std::size_t i = 0; i < x.shape.size(); ++i) {
    const double size = std::floor(static_cast<double>(x.shape[i]) * (*scales)[i]);
    if (!(size >= 0.0 && size < 1e12)) return std::nullopt;
    shape.push_back(static_cast<std::int64_t>(size));
  }
  return shape;
}

void lower_resize(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  auto shape = resized(call);
  if (!call.well()) return;
  if (!shape || std::any_of(shape->begin(), shape->end(), [](std::int64_t v) { return v < 0; })) {
    return call.refuse("a size that is not known before it runs",
                       "one scale or size for each dimension, decided by the inputs' shapes");
  }
  if (!x.is_tensor()) {
    call.out[0].shape = *shape;
    return;
  }
  call.out[0] = call.lowering.emit(OperatorKind::upsample, call, {&x}, *shape);
}

}  // namespace

const OnnxOperators& onnx_network_operators() {
  static const OnnxOperators kOperators = {
      {"AveragePool", {lower_pool}},
      {"BatchNormalization", {lower_batch_norm, 3}},
      {"Col2Im", {lower_col2im, 3}},
      {"Conv", {lower_conv, 2}},
      {"ConvTranspose", {lower_conv, 2}},
      {"GlobalAveragePool", {lower_global_pool}},
      {"GlobalLpPool", {lower_global_pool}},
      {"GlobalMaxPool", {lower_global_pool}},
      {"GroupNormalization", {lower_group_norm}},
      {"Hardmax", {lower_row_norm}},
      {"InstanceNormalization", {lower_group_norm}},
      {"LayerNormalization", {lower_layer_norm}},
      {"LogSoftmax", {lower_softmax}},
      {"LpNormalization", {lower_row_norm}},
      {"LpPool", {lower_pool}},
      {"MaxPool", {lower_pool}},
      {"MeanVarianceNormalization", {lower_row_norm}},
      {"RMSNormalization", {lower_layer_norm, 2}},
      {"Resize", {lower_resize}},
      {"Softmax", {lower_softmax}},
      {"Upsample", {lower_resize}},
  };
  return kOperators;
}

}  // namespace steelyard::model
