// Operators over time: see block_builder.h.
#include <utility>

#include "model/block_builder.h"

namespace steelyard::model {

TensorRef BlockBuilder::conv_over_time(const std::string& name, TensorRef in, std::int64_t channels,
                                       const ConvOptions& options) {
  const Shape sound = shape(in);
  Operator& op = append(OperatorKind::conv, name, {in});
  op.groups = options.groups;
  op.weights = {weight(name + ".weight", {channels, sound.at(1) / options.groups, options.kernel},
                       WeightRole::matrix)};
  if (options.bias) op.weights.push_back(weight(name + ".bias", {channels}, WeightRole::bias));
  op.outputs = {tensor(name, {sound.at(0), channels, windows_of(sound.at(2), options)})};
  return op.outputs.front();
}

TensorRef BlockBuilder::normed_conv(const std::string& name, TensorRef in, std::int64_t channels,
                                    const ConvOptions& options) {
  const Shape sound = shape(in);
  const std::string parametrized = name + ".parametrizations.weight.original";
  Operator& op = append(OperatorKind::normed_conv, name, {in});
  op.groups = options.groups;
  const Shape matrix = {channels, sound.at(1) / options.groups, options.kernel};
  op.weights = {weight(parametrized + "0", {1, 1, options.kernel}, WeightRole::other),
                weight(parametrized + "1", matrix, WeightRole::matrix),
                weight(name + ".bias", {channels}, WeightRole::bias)};
  op.outputs = {tensor(name, {sound.at(0), channels, windows_of(sound.at(2), options)})};
  return op.outputs.front();
}

TensorRef BlockBuilder::masked_tokens(const std::string& name, TensorRef in, TensorRef mask,
                                      double share, const std::string& replacement) {
  const std::int64_t hidden = width(in);
  Operator& op = append_alike(OperatorKind::mask_tokens, name, {in, mask});
  op.in_place = true;
  op.probability = share;
  if (!replacement.empty()) {
    op.weights = {weight(replacement, {hidden}, WeightRole::other)};
  }
  return op.outputs.front();
}

TensorRef BlockBuilder::tokens_times_mask(const std::string& name, TensorRef in, TensorRef mask) {
  return append_alike(OperatorKind::mask_tokens, name, {in, mask}).outputs.front();
}

TensorRef BlockBuilder::cut(const std::string& name, TensorRef in, Shape out) {
  Operator& op = append(OperatorKind::slice, name, {in});
  op.outputs = {tensor(name, std::move(out))};
  return op.outputs.front();
}

}  // namespace steelyard::model
