// Operators of encoders, pictures and mixtures of experts.
#include <utility>

#include "model/block_builder.h"

namespace steelyard::model {

std::int64_t windows_of(std::int64_t side, const ConvOptions& options) {
  const std::int64_t reach = options.dilation * (options.kernel - 1) + 1;
  if (options.transposed) return (side - 1) * options.stride - 2 * options.padding + reach;
  const std::int64_t room = side + 2 * options.padding - reach;
  if (room < 0) return 0;
  if (!options.rounds_up) return room / options.stride + 1;
  const std::int64_t count = (room + options.stride - 1) / options.stride + 1;
  // The last window starts inside of the picture or of its padding before it.
  return (count - 1) * options.stride >= side + options.padding ? count - 1 : count;
}

void BlockBuilder::padding_mask(const std::string& name, TensorRef ids, TensorRef mask) {
  append(OperatorKind::padding_mask, name, {ids}).outputs = {mask};
}

TensorRef BlockBuilder::row_mask(const std::string& name, TensorRef ids, std::int64_t queries) {
  const Shape of_ids = shape(ids);
  const TensorRef mask = tensor(name, {of_ids.at(0), 1, queries, of_ids.at(1)});
  padding_mask(name, ids, mask);
  return mask;
}

TensorRef BlockBuilder::masked_attention(const std::string& name, TensorRef q, TensorRef k,
                                         TensorRef v, TensorRef mask,
                                         const AttentionShape& shape_of_attention) {
  const TensorRef out = attention(name, q, k, v, shape_of_attention);
  block_.operators.back().inputs.push_back(mask);
  return out;
}

TensorRef BlockBuilder::view(const std::string& name, TensorRef in, Shape out, bool transposed) {
  Operator& op = append(OperatorKind::view, name, {in});
  op.transposed = transposed;
  op.outputs = {tensor(name, std::move(out))};
  return op.outputs.front();
}

TensorRef BlockBuilder::contiguous(const std::string& name, TensorRef in) {
  return append_alike(OperatorKind::contiguous, name, {in}).outputs.front();
}

TensorRef BlockBuilder::first_token(const std::string& name, TensorRef in) {
  const Shape whole = shape(in);
  Operator& op = append(OperatorKind::first_token, name, {in});
  op.outputs = {tensor(name, {whole.at(0), whole.at(2)})};
  return op.outputs.front();
}

TensorRef BlockBuilder::class_tokens(const std::string& name, TensorRef in,
                                     const std::vector<std::string>& tokens, bool flat) {
  Shape out = shape(in);
  Operator& op = append(OperatorKind::class_token, name, {in});
  for (const std::string& token : tokens) {
    const Shape of_weight = flat ? Shape{out.back()} : Shape{1, 1, out.back()};
    op.weights.push_back(weight(token, of_weight, WeightRole::other));
  }
  out.at(1) += static_cast<std::int64_t>(tokens.size());
  op.outputs = {tensor(name, std::move(out))};
  return op.outputs.front();
}

TensorRef BlockBuilder::add_weight(const std::string& name, TensorRef in, Shape of_weight) {
  Operator& op = append_alike(OperatorKind::add_weight, name, {in});
  op.weights = {weight(name, std::move(of_weight), WeightRole::other)};
  return op.outputs.front();
}

TensorRef BlockBuilder::conv(const std::string& name, TensorRef in, std::int64_t channels,
                             const ConvOptions& options) {
  const Shape picture = shape(in);
  Operator& op = append(OperatorKind::conv, name, {in});
  op.groups = options.groups;
  op.transposed = options.transposed;
  const std::int64_t rows = options.transposed ? picture.at(1) : channels;
  const std::int64_t columns = (options.transposed ? channels : picture.at(1)) / options.groups;
  op.weights = {weight(name + ".weight", {rows, columns, options.kernel, options.kernel},
                       WeightRole::matrix)};
  if (options.bias) op.weights.push_back(weight(name + ".bias", {channels}, WeightRole::bias));
  op.outputs = {tensor(name, {picture.at(0), channels, windows_of(picture.at(2), options),
                              windows_of(picture.at(3), options)})};
  return op.outputs.front();
}

TensorRef BlockBuilder::batch_norm(const std::string& name, TensorRef in) {
  const std::int64_t channels = shape(in).at(1);
  Operator& op = append_alike(OperatorKind::batch_norm, name, {in});
  op.weights = {weight(name + ".weight", {channels}, WeightRole::norm),
                weight(name + ".bias", {channels}, WeightRole::bias)};
  block_.buffers.push_back({name + ".running_mean", {channels}, ElementKind::real});
  block_.buffers.push_back({name + ".running_var", {channels}, ElementKind::real});
  block_.buffers.push_back({name + ".num_batches_tracked", {}, ElementKind::index});
  return op.outputs.front();
}

TensorRef BlockBuilder::group_norm(const std::string& name, TensorRef in, std::int64_t groups) {
  const std::int64_t channels = shape(in).at(1);
  Operator& op = append_alike(OperatorKind::group_norm, name, {in});
  op.groups = groups;
  op.weights = {weight(name + ".weight", {channels}, WeightRole::norm),
                weight(name + ".bias", {channels}, WeightRole::bias)};
  return op.outputs.front();
}

TensorRef BlockBuilder::max_pool(const std::string& name, TensorRef in, const ConvOptions& window) {
  const Shape picture = shape(in);
  Operator& op = append(OperatorKind::max_pool, name, {in});
  op.outputs = {tensor(name, {picture.at(0), picture.at(1), windows_of(picture.at(2), window),
                              windows_of(picture.at(3), window)})};
  return op.outputs.front();
}

TensorRef BlockBuilder::average_pool(const std::string& name, TensorRef in, std::int64_t height,
                                     std::int64_t width) {
  const Shape picture = shape(in);
  Operator& op = append(OperatorKind::average_pool, name, {in});
  op.outputs = {tensor(name, {picture.at(0), picture.at(1), height, width})};
  return op.outputs.front();
}

TensorRef BlockBuilder::global_average_pool(const std::string& name, TensorRef in,
                                            bool keeps_rank) {
  const Shape whole = shape(in);
  Operator& op = append(OperatorKind::global_average_pool, name, {in});
  Shape out = {whole.at(0), whole.size() == 3 ? whole.at(2) : whole.at(1)};
  if (keeps_rank) out.insert(out.end(), {1, 1});
  op.outputs = {tensor(name, std::move(out))};
  return op.outputs.front();
}

TensorRef BlockBuilder::upsample(const std::string& name, TensorRef in, std::int64_t height,
                                 std::int64_t width) {
  const Shape picture = shape(in);
  Operator& op = append(OperatorKind::upsample, name, {in});
  op.outputs = {tensor(name, {picture.at(0), picture.at(1), height, width})};
  return op.outputs.front();
}

TensorRef BlockBuilder::concatenate(const std::string& name, TensorRef a, TensorRef b) {
  return concatenate(name, {a, b}, 1);
}

TensorRef BlockBuilder::concatenate(const std::string& name, const std::vector<TensorRef>& parts,
                                    std::size_t dimension) {
  Shape out = shape(parts.front());
  out.at(dimension) = 0;
  for (const TensorRef part : parts) out.at(dimension) += shape(part).at(dimension);
  Operator& op = append(OperatorKind::concatenate, name, parts);
  op.outputs = {tensor(name, std::move(out))};
  return op.outputs.front();
}

TensorRef BlockBuilder::multiply(const std::string& name, TensorRef a, TensorRef b) {
  return append_alike(OperatorKind::multiply, name, {a, b}).outputs.front();
}

TensorRef BlockBuilder::multiply_weight(const std::string& name, TensorRef in,
                                        std::int64_t elements) {
  Operator& op = append_alike(OperatorKind::multiply_weight, name, {in});
  op.weights = {weight(name, {elements}, WeightRole::other)};
  return op.outputs.front();
}

TensorRef BlockBuilder::drop_path(const std::string& name, TensorRef in, double probability) {
  if (probability <= 0.0) return in;
  Operator& op = append_alike(OperatorKind::drop_path, name, {in});
  op.probability = probability;
  return op.outputs.front();
}

TensorRef BlockBuilder::roll(const std::string& name, TensorRef in) {
  return append_alike(OperatorKind::roll, name, {in}).outputs.front();
}

TensorRef BlockBuilder::pad(const std::string& name, TensorRef in, Shape out) {
  Operator& op = append(OperatorKind::pad, name, {in});
  op.outputs = {tensor(name, std::move(out))};
  return op.outputs.front();
}

TensorRef BlockBuilder::match_boxes(const std::string& name, TensorRef in, std::int64_t pairs,
                                    double bytes) {
  Operator& op = append_alike(OperatorKind::match_boxes, name, {in});
  op.groups = pairs;
  op.constant = bytes;
  return op.outputs.front();
}

TensorRef BlockBuilder::window_bias(const std::string& name, std::int64_t rows, std::int64_t length,
                                    std::int64_t heads) {
  Operator& op = append(OperatorKind::window_bias, name, {});
  op.weights = {weight(name + "_table", {rows, heads}, WeightRole::other)};
  op.outputs = {tensor(name, {1, heads, length, length})};
  block_.buffers.push_back({name + "_index", {length, length}, ElementKind::index});
  return op.outputs.front();
}

TensorRef BlockBuilder::timestep_embedding(const std::string& name, TensorRef steps,
                                           std::int64_t channels) {
  const std::int64_t samples = shape(steps).at(0);
  Operator& op = append(OperatorKind::timestep_embedding, name, {steps});
  op.outputs = {tensor(name, {samples, channels})};
  return op.outputs.front();
}

TensorRef BlockBuilder::activation_in_place(const std::string& name, TensorRef in,
                                            ActivationKind kind) {
  const TensorRef out = activation(name, in, kind);
  block_.operators.back().in_place = true;
  return out;
}

TensorRef BlockBuilder::add_in_place(const std::string& name, TensorRef into, TensorRef other) {
  const TensorRef out = add(name, into, other);
  block_.operators.back().in_place = true;
  return out;
}

TensorRef BlockBuilder::relative_bias(const std::string& name, std::int64_t buckets,
                                      std::int64_t heads, std::int64_t queries, std::int64_t keys) {
  Operator& op = append(OperatorKind::relative_bias, name, {});
  if (buckets > 0) {
    op.weights = {weight(name + ".weight", {buckets, heads}, WeightRole::embedding)};
  }
  op.outputs = {tensor(name, {1, heads, queries, keys})};
  return op.outputs.front();
}

TensorRef BlockBuilder::recurrent_attention(const std::string& name, TensorRef in, TensorRef memory,
                                            TensorRef distances, const AttentionShape& of_attention,
                                            const std::string& content_bias,
                                            const std::string& distance_bias) {
  const Shape stream = shape(in);
  const std::int64_t inner = of_attention.heads * of_attention.head_dim;
  const Shape bias = {of_attention.heads, of_attention.head_dim};
  Operator& op = append(OperatorKind::recurrent_attention, name, {in, memory, distances});
  op.attention = of_attention;
  op.weights = {weight(name + ".qkv_net.weight", {3 * inner, stream.back()}, WeightRole::matrix),
                weight(name + ".r_net.weight", {inner, stream.back()}, WeightRole::matrix),
                weight(content_bias, bias, WeightRole::other, content_bias),
                weight(distance_bias, bias, WeightRole::other, distance_bias)};
  op.outputs = {tensor(name, {stream.at(0), stream.at(1), inner})};
  return op.outputs.front();
}

TensorRef BlockBuilder::disentangled_attention(const std::string& name, TensorRef q, TensorRef k,
                                               TensorRef v, TensorRef key_distances,
                                               TensorRef query_distances,
                                               const AttentionShape& of_attention) {
  const Shape query = shape(q);
  std::vector<TensorRef> inputs = {q, k, v};
  for (const TensorRef distances : {key_distances, query_distances}) {
    if (distances.index >= 0) inputs.push_back(distances);
  }
  Operator& op = append(OperatorKind::disentangled_attention, name, std::move(inputs));
  op.attention = of_attention;
  op.outputs = {tensor(name, {query.at(0), query.at(2), query.at(1) * query.at(3)})};
  return op.outputs.front();
}

TensorRef BlockBuilder::clamp(const std::string& name, TensorRef in) {
  return append_alike(OperatorKind::clamp, name, {in}).outputs.front();
}

TensorRef BlockBuilder::jitter(const std::string& name, TensorRef in) {
  return append_alike(OperatorKind::jitter, name, {in}).outputs.front();
}

TensorRef BlockBuilder::parameter(const std::string& name, Shape of_weight, WeightRole role) {
  Operator& op = append(OperatorKind::parameter, name, {});
  op.weights = {weight(name, of_weight, role)};
  op.outputs = {tensor(name, std::move(of_weight))};
  return op.outputs.front();
}

void BlockBuilder::own_weight(const std::string& name, Shape of_weight) {
  weight(name, std::move(of_weight), WeightRole::other);
}

TensorRef BlockBuilder::add_buffer(const std::string& name, TensorRef in) {
  block_.buffers.push_back({name, {1, width(in)}, ElementKind::real});
  return append_alike(OperatorKind::add_buffer, name, {in}).outputs.front();
}

std::pair<TensorRef, TensorRef> BlockBuilder::router(const std::string& name, TensorRef in,
                                                     const MixtureShape& mixture) {
  const std::int64_t hidden = width(in);
  const std::int64_t tokens = elements(shape(in)) / hidden;
  Operator& op = append(OperatorKind::router, name, {in});
  op.mixture = mixture;
  op.weights = {weight(name + ".weight", {mixture.experts, hidden}, WeightRole::matrix)};
  if (mixture.router_bias) {
    op.weights.push_back(weight(name + ".bias", {mixture.experts}, WeightRole::bias));
  }
  if (mixture.routing == Routing::sigmoid || mixture.routing == Routing::sigmoid_normalised) {
    block_.buffers.push_back(
        {name + ".e_score_correction_bias", {mixture.experts}, ElementKind::real});
  }
  if (mixture.routing == Routing::softmax_corrected) {
    const std::string module = name.substr(0, name.rfind('.'));
    weight(module + ".moe_statics.e_score_correction_bias", {1, mixture.experts},
           WeightRole::other);
    block_.weights.back().trains = false;
  }
  // Some codes spread the weights of the chosen over all experts.
  const bool spread = mixture.code == ExpertCode::selected || mixture.code == ExpertCode::dense;
  op.outputs = {tensor(name + ".weights", {tokens, spread ? mixture.experts : mixture.chosen}),
                tensor(name + ".experts", {tokens, mixture.chosen}, ElementKind::index)};
  return {op.outputs[0], op.outputs[1]};
}

std::vector<TensorRef> BlockBuilder::expert_assignment(const std::string& name, TensorRef chosen,
                                                       const MixtureShape& mixture) {
  const std::int64_t choices = elements(shape(chosen));
  Operator& op = append(OperatorKind::expert_assignment, name, {chosen});
  op.mixture = mixture;
  for (std::int64_t i = 0; i < mixture.experts; ++i) {
    const std::int64_t own = choices / mixture.experts + (i < choices % mixture.experts ? 1 : 0);
    const std::string expert = name + "." + std::to_string(i);
    op.outputs.push_back(tensor(expert + ".slots", {own}, ElementKind::index));
    op.outputs.push_back(tensor(expert + ".tokens", {own}, ElementKind::index));
  }
  return op.outputs;
}

TensorRef BlockBuilder::experts(const std::string& name, TensorRef in, TensorRef weights,
                                const std::vector<TensorRef>& assignment,
                                const MixtureShape& mixture, ActivationKind kind,
                                const ExpertNames& names) {
  const std::int64_t hidden = width(in);
  std::vector<TensorRef> inputs = {in, weights};
  inputs.insert(inputs.end(), assignment.begin(), assignment.end());
  Operator& op = append_alike(OperatorKind::experts, name, std::move(inputs));
  op.mixture = mixture;
  op.activation = kind;
  for (std::int64_t i = 0; i < mixture.experts; ++i) {
    const std::string expert = name + "." + std::to_string(i);
    const auto add = [&](const std::string& part, Shape of_weight) {
      op.weights.push_back(
          weight(expert + "." + part + ".weight", std::move(of_weight), WeightRole::matrix));
      block_.weights.back().expert = true;
    };
    add(names.gate, {mixture.intermediate, hidden});
    add(names.down, {hidden, mixture.intermediate});
    add(names.up, {mixture.intermediate, hidden});
  }
  return op.outputs.front();
}

TensorRef BlockBuilder::stacked_experts(const std::string& name, TensorRef in, TensorRef weights,
                                        const std::vector<TensorRef>& read,
                                        const MixtureShape& mixture, ActivationKind kind,
                                        const std::vector<StackedWeight>& held) {
  std::vector<TensorRef> inputs = {in, weights};
  inputs.insert(inputs.end(), read.begin(), read.end());
  Operator& op = append_alike(OperatorKind::experts, name, std::move(inputs));
  op.mixture = mixture;
  op.activation = kind;
  op.fused_gate_up = mixture.code != ExpertCode::chunked;
  for (const StackedWeight& one : held) {
    op.weights.push_back(weight(one.name, one.shape, one.role));
    block_.weights.back().expert = true;
  }
  return op.outputs.front();
}

TensorRef BlockBuilder::parallel_experts(const std::string& name, TensorRef in, TensorRef weights,
                                         TensorRef chosen, const MixtureShape& mixture,
                                         ActivationKind kind) {
  const std::int64_t hidden = width(in);
  Operator& op = append_alike(OperatorKind::experts, name, {in, weights, chosen});
  op.mixture = mixture;
  op.activation = kind;
  op.fused_gate_up = true;
  const auto add = [&](const char* part, Shape of_weight) {
    op.weights.push_back(weight(name + part, std::move(of_weight), WeightRole::matrix));
    block_.weights.back().expert = true;
  };
  add(".input_linear.weight", {mixture.experts, 2 * mixture.intermediate, hidden});
  add(".output_linear.weight", {mixture.experts, hidden, mixture.intermediate});
  return op.outputs.front();
}

TensorRef BlockBuilder::two_matrix_experts(const std::string& name, TensorRef in, TensorRef weights,
                                           const std::vector<TensorRef>& assigned,
                                           const MixtureShape& mixture, ActivationKind kind,
                                           bool gated) {
  const std::int64_t hidden = width(in);
  std::vector<TensorRef> inputs = {in, weights};
  inputs.insert(inputs.end(), assigned.begin(), assigned.end());
  Operator& op = append_alike(OperatorKind::experts, name, std::move(inputs));
  op.mixture = mixture;
  op.activation = kind;
  op.fused_gate_up = gated;
  const std::int64_t first = gated ? 2 * mixture.intermediate : mixture.intermediate;
  for (std::int64_t i = 0; i < mixture.experts; ++i) {
    const std::string expert = name + "." + std::to_string(i);
    op.weights.push_back(
        weight(expert + ".linear_fc1.weight", {first, hidden}, WeightRole::matrix));
    block_.weights.back().expert = true;
    op.weights.push_back(
        weight(expert + ".linear_fc2.weight", {hidden, mixture.intermediate}, WeightRole::matrix));
    block_.weights.back().expert = true;
  }
  return op.outputs.front();
}

}  // namespace steelyard::model
