// Layers that see the current tensor under another shape, and attention over tokens.
#include <fmt/format.h>

#include <algorithm>

#include "model/layer_reader.h"

namespace steelyard::model {

namespace {

constexpr Limits kSide{1, 4096};

std::int64_t padded(std::int64_t size, std::int64_t step) {
  return (size + step - 1) / step * step;
}

}  // namespace

// flatten(2).transpose(1, 2); channels_last().flatten(1, 2) of a picture whose channels are last.
void LayerReader::read_tokens(LayerArguments& layer) {
  const Shape* shape = of_rank(layer, 4);
  if (shape == nullptr) return;
  const bool last = now_.channels_last;
  const Shape tokens = last ? Shape{shape->at(0), shape->at(1) * shape->at(2), shape->at(3)}
                            : Shape{shape->at(0), shape->at(2) * shape->at(3), shape->at(1)};
  set(block_.view(layer.text("tokens", "tokens"), now_.tensor, tokens, !last));
  now_.channels_last = false;
}

// permute(0, 2, 3, 1). What a convolution puts out lies with its channels last where a network of
// this kind runs: the permuted tensors lead its kernels to that order (ATen's
// cudnn_conv_suggest_memory_format), so that none of these views is copied.
void LayerReader::read_channels_last(LayerArguments& layer) {
  const Shape* shape = picture(layer);
  if (shape == nullptr) return;
  const Shape last{shape->at(0), shape->at(2), shape->at(3), shape->at(1)};
  set(block_.view(layer.text("channels_last", "permute"), now_.tensor, last));
  now_.channels_last = true;
}

void LayerReader::read_channels_first(LayerArguments& layer) {
  const Shape* shape = of_rank(layer, 4);
  if (shape == nullptr) return;
  if (!now_.channels_last) {
    return layer.reject("channels_first", "a picture whose channels are first",
                        "one whose channels are last");
  }
  const Shape first{shape->at(0), shape->at(3), shape->at(1), shape->at(2)};
  set(block_.view(layer.text("channels_first", "permute"), now_.tensor, first));
  now_.channels_last = false;
}

// [B,S,H] -> [B,H,S]; products read a copy.
void LayerReader::read_transpose(LayerArguments& layer) {
  const Shape* shape = of_rank(layer, 3);
  const std::string name = layer.text("transpose", "transpose");
  const bool copies = layer.flag("copy", false);
  if (shape == nullptr) return;
  set(block_.view(name, now_.tensor, {shape->at(0), shape->at(2), shape->at(1)}, true));
  if (copies) set(block_.contiguous(name + ".contiguous", now_.tensor));
}

void LayerReader::read_shape(LayerArguments& layer) {
  const Shape shape = layer.wholes("shape");
  const bool last = layer.flag("channels_last", false);
  const std::string name = layer.text("name", "view");
  const Shape before = block_.shape(now_.tensor);
  double product = 1.0;
  for (const std::int64_t size : shape) product *= static_cast<double>(size);
  if (shape.empty() || product != static_cast<double>(elements(before))) {
    return layer.reject(
        "shape", fmt::format("[{}]", fmt::join(shape, ",")),
        fmt::format("the {} elements of [{}]", elements(before), fmt::join(before, ",")));
  }
  set(block_.view(name, now_.tensor, shape));
  now_.channels_last = last && shape.size() == 4;
}

void LayerReader::read_flatten(LayerArguments& layer) {
  const Shape shape = block_.shape(now_.tensor);
  set(block_.view(layer.text("flatten", "flatten"), now_.tensor,
                  {shape.front(), elements(shape) / shape.front()}));
  now_.channels_last = false;
}

// Squares of n x n pixels as one with n*n times the channels: PatchMerging of Swin.
void LayerReader::read_fold(LayerArguments& layer) {
  const std::int64_t side = layer.whole("fold", 2, kSide);
  const Shape* shape = of_rank(layer, 4);
  if (shape == nullptr) return;
  const Shape whole = *shape;
  const bool last = now_.channels_last;
  const std::int64_t height = whole.at(last ? 1 : 2);
  const std::int64_t width = whole.at(last ? 2 : 3);
  const std::int64_t channels = whole.at(last ? 3 : 1);
  if (height % side != 0 || width % side != 0) {
    return layer.reject("fold", fmt::format("{}", side),
                        fmt::format("a divisor of {} and {}", height, width));
  }
  const std::int64_t deep = channels * side * side;
  const Shape folded = last ? Shape{whole[0], height / side, width / side, deep}
                            : Shape{whole[0], deep, height / side, width / side};
  set(block_.view("fold", now_.tensor, folded, true));
  set(block_.contiguous("fold.contiguous", now_.tensor));
}

void LayerReader::read_class_token(LayerArguments& layer) {
  const std::vector<std::string> names = layer.texts("class_token");
  if (of_rank(layer, 3) == nullptr || names.empty()) return;
  set(block_.class_tokens("class_token", now_.tensor, names));
}

void LayerReader::read_first_token(LayerArguments& layer) {
  const std::string name = layer.text("first_token", "first_token");
  if (of_rank(layer, 3) != nullptr) set(block_.first_token(name, now_.tensor));
}

// Of queries, keys and values that a linear before put side by side: [B,S,3H] -> [B,S,H].
void LayerReader::read_attention(LayerArguments& layer) {
  const std::string name = layer.text("attention", "attn");
  const std::int64_t heads = layer.whole("heads", 1, kHeadLimits);
  const double dropout = layer.real("dropout", 0.0, 0.0, 1.0);
  const bool fused = layer.flag("fused", true);
  const std::string bias = layer.text("bias", "");
  const std::int64_t rows = layer.whole("bias_rows", 1, kWideLimits);
  const std::int64_t masks = layer.whole("masks", 0, {0, 1});
  const Shape* shape = of_rank(layer, 3);
  if (shape == nullptr) return;
  const std::int64_t width = shape->at(2) / 3;
  const std::int64_t length = shape->at(1);
  if (shape->at(2) % 3 != 0 || width % heads != 0) {
    return layer.reject("heads", fmt::format("{} for a width of {}", heads, shape->at(2)),
                        "queries, keys and values of whole heads");
  }
  const auto parts =
      block_.split(name + ".split", now_.tensor, {{"q", width}, {"k", width}, {"v", width}});
  std::vector<TensorRef> split;
  for (const char* part : {"q", "k", "v"}) {
    split.push_back(
        block_.heads(fmt::format("{}.{}_heads", name, part), parts[split.size()], heads));
  }
  AttentionShape attention{
      .heads = heads, .kv_heads = heads, .head_dim = width / heads, .causal = false};
  attention.dropout = dropout;
  attention.always_eager = !fused;
  if (bias.empty()) {
    return set(block_.attention(name, split[0], split[1], split[2], attention));
  }
  attention.bias = true;
  attention.padding_mask = masks != 0;
  const TensorRef added = block_.window_bias(bias, rows, length, heads);
  set(block_.masked_attention(name, split[0], split[1], split[2], added, attention));
}

// Layers over the tokens [B*n,s*s,C] of n windows of s x s pixels each; with a shift the picture
// is turned before and back behind (Swin: window_partition, torch.roll, window_reverse).
void LayerReader::read_windows(LayerArguments& layer) {
  const Shape* shape = of_rank(layer, 4);
  if (shape == nullptr) return;
  if (!now_.channels_last) {
    return layer.reject("windows", "a picture whose channels are first",
                        "a layer channels_last before");
  }
  const Shape whole = *shape;
  // A picture smaller than a window: the window shrinks (timm, transformers), or the picture is
  // padded (torchvision, shifted_window_attention).
  const std::int64_t window = layer.whole("windows", 7, kSide);
  const std::int64_t side =
      layer.flag("pads", false) ? window : std::min(window, std::min(whole[1], whole[2]));
  const Shape wide{whole[0], padded(whole[1], side), padded(whole[2], side), whole[3]};
  const bool shifts = layer.flag("shift", false) && std::min(wide[1], wide[2]) > side;
  if (shifts) set(block_.roll("roll", now_.tensor));
  set(block_.pad("pad", now_.tensor, wide));
  const std::int64_t count = wide[1] / side * (wide[2] / side);
  set(block_.view("window_partition", now_.tensor, {whole[0] * count, side * side, whole[3]},
                  true));
  set(block_.contiguous("window_partition.contiguous", now_.tensor));
  now_.channels_last = false;
  const facts::Array& inside = layer.list("layers");
  scope_["side"] = side;
  scope_["shifted"] = shifts;
  run(inside);
  if (fault_) return;
  if (block_.shape(now_.tensor) != Shape{whole[0] * count, side * side, whole[3]}) {
    return layer.reject("layers", "another shape at their end", "that of the windows");
  }
  set(block_.view("window_reverse", now_.tensor, wide, true));
  set(block_.contiguous("window_reverse.contiguous", now_.tensor));
  if (wide != whole) {
    set(block_.pad("window_reverse.crop", now_.tensor, whole));
  }
  if (shifts) set(block_.roll("roll_back", now_.tensor));
  now_.channels_last = true;
}

}  // namespace steelyard::model
