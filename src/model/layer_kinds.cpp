// Layers that are one operator each.
#include <fmt/format.h>

#include "model/layer_reader.h"

namespace steelyard::model {

namespace {

constexpr Limits kChannels{1, 1'048'576};
constexpr Limits kWindow{1, 4096};
constexpr Limits kPadding{0, 4096};
constexpr Limits kAnchors{1, 1'000'000'000};
constexpr Limits kObjects{0, 1'000'000};

// Kernel, stride and what else says how a window moves. Without a padding an odd window keeps the
// size of what it strides over by 1.
ConvOptions window_of(LayerArguments& layer, std::int64_t kernel) {
  ConvOptions options;
  options.kernel = layer.whole("kernel", kernel, kWindow);
  options.dilation = layer.whole("dilation", 1, kWindow);
  options.stride = layer.whole("stride", 1, kWindow);
  options.padding = layer.whole("padding", options.dilation * (options.kernel - 1) / 2, kPadding);
  return options;
}

}  // namespace

void LayerReader::read_conv(LayerArguments& layer) {
  const std::string name = layer.text("conv", "conv");
  ConvOptions options = window_of(layer, 1);
  options.groups = layer.whole("groups", 1, kChannels);
  options.bias = layer.flag("bias", false);
  options.transposed = layer.flag("transposed", false);
  const Shape* shape = picture(layer);
  if (shape == nullptr) return;
  const std::int64_t channels = layer.whole("out", shape->at(1), kChannels);
  if (shape->at(1) % options.groups != 0 || channels % options.groups != 0) {
    return layer.reject("groups", fmt::format("{}", options.groups),
                        fmt::format("a divisor of {} and {}", shape->at(1), channels));
  }
  if (windows_of(shape->at(2), options) < 1 || windows_of(shape->at(3), options) < 1) {
    return layer.reject("kernel", fmt::format("{}", options.kernel),
                        fmt::format("one that fits into {} x {}", shape->at(2), shape->at(3)));
  }
  set(block_.conv(name, now_.tensor, channels, options));
}

void LayerReader::read_batch_norm(LayerArguments& layer) {
  const std::string name = layer.text("batch_norm", "bn");
  const bool wide = layer.flag("wide", false);  // x.float() before, and back to 16 bits behind
  if (picture(layer) == nullptr) return;
  if (wide) set(block_.widen(name + ".float", now_.tensor));
  set(block_.batch_norm(name, now_.tensor));
  if (wide) set(block_.narrow(name + ".half", now_.tensor));
}

// torchvision's FrozenBatchNorm2d (ops/misc.py): x * scale + bias, both made of buffers, so that x
// is not kept (by PyTorch 1.0 it is). Under autocast fp32 buffers make an fp32 result, unless the
// code casts them to the input's type (maskrcnn-benchmark, layers/batch_norm.py).
void LayerReader::read_frozen_norm(LayerArguments& layer) {
  const std::string name = layer.text("frozen_norm", "bn");
  const bool casts = layer.flag("casts", false);
  const Shape* shape = picture(layer);
  if (shape == nullptr) return;
  constexpr std::int64_t kBuffers = 4;         // weight, bias, mean and variance
  const std::int64_t channels = shape->at(1);  // the shape moves when the block grows
  const TensorRef factors = block_.values(name + ".scale", {1, channels, 1, 1});
  const TensorRef scaled = block_.multiply(name + ".scaled", now_.tensor, factors);
  block_.last().keeps_narrow = casts;
  set(block_.add_buffer(name, scaled, {kBuffers, channels}));
}

void LayerReader::read_group_norm(LayerArguments& layer) {
  const std::string name = layer.text("group_norm", "gn");
  const std::int64_t groups = layer.whole("groups", 32, kChannels);
  const Shape* shape = picture(layer);
  if (shape == nullptr) return;
  if (shape->at(1) % groups != 0) {
    return layer.reject("groups", fmt::format("{}", groups),
                        fmt::format("a divisor of {}", shape->at(1)));
  }
  set(block_.group_norm(name, now_.tensor, groups));
}

// Over the last dimension: channels of a picture have to be last.
void LayerReader::read_layer_norm(LayerArguments& layer) {
  const std::string name = layer.text("layer_norm", "norm");
  const bool affine = layer.flag("affine", true);
  if (block_.shape(now_.tensor).size() == 4 && !now_.channels_last) {
    return layer.reject("layer_norm", "a picture whose channels are first",
                        "a layer channels_last before");
  }
  set(block_.layer_norm(name, now_.tensor, {.weight = affine, .bias = affine}));
}

void LayerReader::read_linear(LayerArguments& layer) {
  const std::string name = layer.text("linear", "fc");
  const std::int64_t columns = layer.whole("out", block_.width(now_.tensor), kWideLimits);
  const bool bias = layer.flag("bias", true);
  // BEiT's keys have no bias: that of the fused projection is put together of two.
  const std::int64_t bias_size = layer.whole("bias_size", columns, kWideLimits);
  if (block_.shape(now_.tensor).size() == 4 && !now_.channels_last) {
    return layer.reject("linear", "a picture whose channels are first",
                        "a layer channels_last or flatten before");
  }
  set(block_.linear(name, now_.tensor, columns, {.bias = bias, .bias_size = bias_size}));
}

void LayerReader::read_activation(LayerArguments& layer) {
  const ActivationKind kind = layer.activation("activation");
  const std::string name = layer.text("name", layer.text("activation", ""));
  set(layer.flag("in_place", false) ? block_.activation_in_place(name, now_.tensor, kind)
                                    : block_.activation(name, now_.tensor, kind));
}

void LayerReader::pool(LayerArguments& layer, bool largest) {
  const std::string name = layer.text(layer.kind(), "pool");
  ConvOptions options = window_of(layer, 2);
  options.rounds_up = layer.flag("rounds_up", false);
  const std::vector<std::int64_t> size = layer.wholes("size");
  const Shape* shape = picture(layer);
  if (shape == nullptr) return;
  if (!largest && !size.empty()) {
    if (size.size() != 2) return layer.reject("size", "another list", "[height, width]");
    return set(block_.average_pool(name, now_.tensor, size[0], size[1]));
  }
  const std::int64_t height = windows_of(shape->at(2), options);
  const std::int64_t width = windows_of(shape->at(3), options);
  if (height < 1 || width < 1) {
    return layer.reject("kernel", fmt::format("{}", options.kernel),
                        fmt::format("one that fits into {} x {}", shape->at(2), shape->at(3)));
  }
  set(largest ? block_.max_pool(name, now_.tensor, options)
              : block_.average_pool(name, now_.tensor, height, width));
}

void LayerReader::read_max_pool(LayerArguments& layer) {
  pool(layer, true);
}

void LayerReader::read_average_pool(LayerArguments& layer) {
  pool(layer, false);
}

void LayerReader::read_global_pool(LayerArguments& layer) {
  const std::string name = layer.text("global_pool", "pool");
  const bool keeps = layer.flag("keep", false);
  const Shape& shape = block_.shape(now_.tensor);
  if (shape.size() == 4 && now_.channels_last) {  // [B,h,w,C] as tokens [B,h*w,C]
    set(block_.view(name + ".tokens", now_.tensor, {shape[0], shape[1] * shape[2], shape[3]}));
  } else if (shape.size() != 3 && shape.size() != 4) {
    return layer.reject("global_pool", "rows", "a picture or tokens");
  }
  const bool tokens = block_.shape(now_.tensor).size() == 3;
  set(block_.global_average_pool(name, now_.tensor, keeps && !tokens));
  now_.channels_last = false;
}

void LayerReader::read_upsample(LayerArguments& layer) {
  const std::string name = layer.text("upsample", "upsample");
  const std::int64_t factor = layer.whole("factor", 2, kWindow);
  std::vector<std::int64_t> size = layer.wholes("size");
  const Shape* shape = picture(layer);
  if (shape == nullptr) return;
  if (size.empty()) size = {shape->at(2) * factor, shape->at(3) * factor};
  if (size.size() != 2) return layer.reject("size", "another list", "[height, width]");
  set(block_.upsample(name, now_.tensor, size[0], size[1]));
}

// A detector's anchors beside the objects of a picture (box_iou and its like): corners of the
// overlap, its width and height, areas and quotient of every pair, picture by picture, in fp32
// whatever the precision is. They are gone when the next layer begins.
void LayerReader::read_match(LayerArguments& layer) {
  constexpr double kPair = 36.0;  // corners 8 and 8, sides 8, overlap, union and quotient 4 each
  const std::string name = layer.text("match", "match");
  const std::int64_t anchors = layer.whole("anchors", 1, kAnchors);
  const std::int64_t objects = layer.whole("objects", 0, kObjects);
  const double bytes = layer.real("pair_bytes", kPair, 4.0, 1024.0);
  if (objects == 0) return;
  set(block_.match_boxes(name, now_.tensor, checked_multiply(anchors, objects), bytes));
}

// Parts of a map for so many regions of each picture (torchvision/ops/poolers.py,
// MultiScaleRoIAlign): new tensors, of which backward reads the regions alone. Of several levels
// the finest one stands for all: their parts come from it for the most part.
void LayerReader::read_roi_align(LayerArguments& layer) {
  const std::string name = layer.text("roi_align", "roi_align");
  const std::int64_t regions = layer.whole("regions", 512, kWindow);
  const std::int64_t size = layer.whole("size", 7, kWindow);
  const Shape* shape = picture(layer);
  if (shape == nullptr) return;
  const std::int64_t of_all = checked_multiply(shape->at(0), regions);
  set(block_.pad(name, now_.tensor, {of_all, shape->at(1), size, size}));
}

void LayerReader::read_scale(LayerArguments& layer) {
  const std::string name = layer.text("scale", "gamma");
  const Shape& shape = block_.shape(now_.tensor);
  const bool first = shape.size() == 4 && !now_.channels_last;
  set(block_.multiply_weight(name, now_.tensor, first ? shape.at(1) : shape.back()));
}

void LayerReader::read_dropout(LayerArguments& layer) {
  const double probability = layer.real("dropout", 0.0, 0.0, 1.0);
  set(block_.dropout(layer.text("name", "dropout"), now_.tensor, probability));
}

void LayerReader::read_drop_path(LayerArguments& layer) {
  const double probability = layer.real("drop_path", 0.0, 0.0, 1.0);
  set(block_.drop_path(layer.text("name", "drop_path"), now_.tensor, probability));
}

// Of all dimensions but the first.
void LayerReader::read_add_weight(LayerArguments& layer) {
  Shape shape = block_.shape(now_.tensor);
  shape.front() = 1;
  set(block_.add_weight(layer.text("add_weight", "pos_embed"), now_.tensor, std::move(shape)));
}

void LayerReader::read_widen(LayerArguments& layer) {
  set(block_.widen(layer.text("widen", "float"), now_.tensor));
}

}  // namespace steelyard::model
