#include "model/companion_listing.h"

#include <algorithm>
#include <utility>

namespace steelyard::model {

Listing::Listing(Graph& graph, std::string block) : graph_(graph) {
  block_.name = std::move(block);
}

void Listing::weight(const std::string& name, Shape shape, WeightRole role) {
  Weight held;
  held.name = name;
  held.shape = std::move(shape);
  held.role = role;
  block_.weights.push_back(std::move(held));
}

void Listing::norm(const std::string& name, std::int64_t width, bool bias) {
  weight(name + ".weight", {width}, WeightRole::norm);
  if (bias) weight(name + ".bias", {width}, WeightRole::bias);
}

TensorRef Listing::tensor(const std::string& name, Shape shape) {
  block_.tensors.push_back({name, std::move(shape), ElementKind::real});
  return {false, static_cast<std::int32_t>(block_.tensors.size()) - 1};
}

Operator& Listing::append(OperatorKind kind, const std::string& name, Shape in, Shape out) {
  Operator& op = block_.operators.emplace_back();
  op.kind = kind;
  op.name = name;
  op.inputs = {tensor(name + " input", std::move(in))};
  op.outputs = {tensor(name, std::move(out))};
  return op;
}

// [B,S,C] of tokens, [B,C,...] of pictures.
Shape Listing::with_channels(std::int64_t channels) const {
  Shape shape = positions_;
  if (positions_.size() == 2) {
    shape.push_back(channels);
  } else {
    shape.insert(shape.begin() + 1, channels);
  }
  return shape;
}

void Listing::linear(const std::string& name, std::int64_t in, std::int64_t out, bool bias) {
  const auto matrix = static_cast<std::int32_t>(block_.weights.size());
  weight(name + ".weight", {out, in});
  if (bias) weight(name + ".bias", {out}, WeightRole::bias);
  if (!runs()) return;
  const std::int64_t rows = elements(positions_);
  append(OperatorKind::linear, name, {rows, in}, {rows, out}).weights = {matrix};
}

void Listing::conv(const std::string& name, std::int64_t in, std::int64_t out,
                   const Shape& kernel) {
  const auto matrix = static_cast<std::int32_t>(block_.weights.size());
  Shape shape = {out, in};
  shape.insert(shape.end(), kernel.begin(), kernel.end());
  weight(name + ".weight", std::move(shape));
  weight(name + ".bias", {out}, WeightRole::bias);
  if (!runs()) return;
  append(OperatorKind::conv, name, with_channels(in), with_channels(out)).weights = {matrix};
}

void Listing::attention(const std::string& name, std::int64_t heads, std::int64_t width) {
  if (!runs()) return;
  const std::int64_t samples = positions_.front();
  const std::int64_t tokens = elements(positions_) / samples;
  const Shape of_heads = {samples, heads, tokens, width / heads};
  Operator& op = append(OperatorKind::attention, name, of_heads, {samples, tokens, width});
  op.inputs.push_back(tensor(name + " keys", of_heads));
  op.inputs.push_back(tensor(name + " values", of_heads));
  op.attention.heads = op.attention.kv_heads = heads;
  op.attention.head_dim = width / heads;
  op.attention.causal = false;
}

void Listing::halve_sides() {
  if (positions_.size() < 3) return;
  for (std::size_t side = positions_.size() - 2; side < positions_.size(); ++side) {
    positions_[side] = ceil_divide(positions_[side], 2);
  }
}

void Listing::halve_frames() {
  if (positions_.size() == 4) positions_[1] = (positions_[1] - 1) / 2 + 1;
}

void Listing::end(std::int64_t repeat) {
  graph_.segments.push_back({repeat, {std::exchange(block_, Block())}});
}

void Listing::end_in_passes(std::int64_t passes) {
  Block again = block_;
  end();
  if (passes <= 1) return;
  for (Weight& shared : again.weights) shared.tied_to = shared.name;
  graph_.segments.push_back({passes - 1, {std::move(again)}});
}

Shape pixels_read(std::int64_t batch, std::int64_t frames, std::int64_t height, std::int64_t width,
                  bool video) {
  if (height <= 0 || width <= 0) return {};
  if (!video) return {batch * std::max<std::int64_t>(1, frames), height, width};
  return {batch, std::max<std::int64_t>(1, frames), height, width};
}

}  // namespace steelyard::model
