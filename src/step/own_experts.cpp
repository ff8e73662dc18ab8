// Sources: transformers 4.57, modeling_deepseek_v2.py (DeepseekV2MoE.moe), modeling_gpt_oss.py
// (GptOssExperts.forward in training), modeling_dbrx.py (DbrxExperts.forward), modeling_llama4.py
// (Llama4TextMoe.forward).
#include "step/own_experts.h"

#include <utility>

#include "step/linear_operator.h"
#include "step/primitives.h"
#include "step/primitives_image.h"
#include "step/primitives_quantized.h"

namespace steelyard::step {

namespace {

using Gradients = std::vector<Tensor>;

// A part of a weight as an operand: no leaf itself.
Tensor operand(Tensor part) {
  part.leaf = kNoLeaf;
  part.dense = true;
  return part;
}

Tensor module_linear(Tape& tape, const OperatorCall& call, const Tensor& x, std::size_t weight,
                     std::int64_t inputs, std::int64_t outputs) {
  const bool plain = call.quantization.kind == facts::BaseQuantization::none;
  Tensor result = plain ? linear(tape, x, call.weights[weight], Tensor(), inputs, outputs)
                        : quantized_linear(tape, x, Tensor(), inputs, outputs, call.quantization,
                                           call.captured);
  return adapted_expert(tape, call, x, {weight, inputs, outputs}, std::move(result));
}

// new_x = empty_like(outs); new_x[indices] = outs: the indices are saved.
Tensor put_back(Tape& tape, Tensor argument, const Tensor& indices) {
  const Tensor outs = std::move(argument);
  tape.begin_operation(OperationKind::other, {&outs, &indices});
  Tensor y = tape.allocate(outs.numel, outs.dtype, "index_put_");
  tape.pointwise("index_put_", 2 * bytes_of(y));
  if (!tape.tracks({&outs})) return y;
  tape.track(y, "index_put_", {Tape::edge_of(outs)}, {indices.storage},
             [](Tape& t, const Gradients& gradients) {
               Tensor dx = t.allocate(gradients[0].numel, gradients[0].dtype, "index");
               t.pointwise("index", 2 * bytes_of(dx));
               return Gradients{dx};
             });
  return y;
}

Tensor sorted_experts(Tape& tape, const OperatorCall& call) {
  const Tensor& x = call.inputs[0];
  const Tensor& routing = call.inputs[1];
  const model::MixtureShape& mixture = call.op->mixture;
  const std::int64_t hidden = call.input_shapes[0].back();
  const std::int64_t wide = mixture.intermediate;
  const std::int64_t choices = routing.numel;
  Tensor order, rows;
  {
    const Tensor counts = tape.allocate(choices / mixture.chosen * mixture.experts, DType::int64,
                                        "new_zeros");  // cnts.scatter_(1, topk_ids, 1)
    const Tensor sums = tape.allocate(mixture.experts, DType::int64, "sum");
    order = tape.allocate(choices, DType::int64, "argsort");
    const Tensor tokens = tape.allocate(choices, DType::int64, "floor_divide");
    tape.pointwise("argsort", 2 * bytes_of(counts) + 4 * bytes_of(order));
    rows = index(tape, x, {tokens}, checked_multiply(choices, hidden));
  }
  std::vector<Tensor> results;
  std::size_t weight = 0;
  for (const std::int64_t numel : even_parts(choices, mixture.experts, hidden)) {
    const Tensor own = slice(tape, rows, numel);
    Tensor gate = module_linear(tape, call, own, weight, hidden, wide);
    gate = activation(tape, call.op->activation, std::move(gate));
    Tensor h = mul(tape, std::move(gate), module_linear(tape, call, own, weight + 2, hidden, wide));
    results.push_back(module_linear(tape, call, h, weight + 1, wide, hidden));
    weight += 3;
  }
  Tensor outs = joined_rows(tape, results);
  const DType narrow = outs.dtype;
  outs = put_back(tape, std::move(outs), order);
  results.clear();
  // .type(float32).mul_(weights): in place, for which autograd keeps a copy of what was there.
  outs = mul(tape, to(tape, std::move(outs), routing.dtype), routing);
  return to(tape, sum_last(tape, std::move(outs), mixture.chosen), narrow);
}

// gate * sigmoid(gate * alpha) * (up + 1), both cut off; they lie in turn in one tensor.
Tensor clamped_glu(Tape& tape, const Tensor& both) {
  Tensor gate = saving_input(tape, "clamp", slice(tape, both, both.numel / 2));
  Tensor up = saving_input(tape, "clamp", slice(tape, both, both.numel / 2));
  Tensor glu = mul(tape, gate, sigmoid(tape, mul_constant(tape, gate)));
  gate = Tensor();
  up = add_constant(tape, std::move(up));
  return mul(tape, std::move(up), std::move(glu));
}

Tensor zeros_like(Tape& tape, std::int64_t numel, DType dtype) {
  tape.begin_operation(OperationKind::other);
  Tensor zeros = tape.allocate(numel, dtype, "zeros");
  tape.pointwise("zeros", bytes_of(zeros));
  return zeros;
}

Tensor selected_experts(Tape& tape, const OperatorCall& call) {
  const Tensor& x = call.inputs[0];
  const model::MixtureShape& mixture = call.op->mixture;
  const std::int64_t hidden = call.input_shapes[0].back();
  const std::int64_t wide = mixture.intermediate;
  const auto matrix = [&](const Tensor& in, std::size_t weight, std::int64_t inputs,
                          std::int64_t outputs) {
    const Tensor own =
        operand(slice(tape, call.weights[weight], checked_multiply(inputs, outputs)));
    Tensor y = linear(tape, in, own, Tensor(), inputs, outputs);
    return add(tape, std::move(y), operand(slice(tape, call.weights[weight + 1], outputs)));
  };
  Tensor out = zeros_like(tape, x.numel, x.dtype);
  for (std::int64_t e = 0; e < mixture.experts; ++e) {
    const Tensor& tokens = call.inputs[3 + 2 * static_cast<std::size_t>(e)];
    const Tensor own = index(tape, x, {tokens}, checked_multiply(tokens.numel, hidden));
    Tensor h = clamped_glu(tape, matrix(own, 0, hidden, 2 * wide));
    h = matrix(h, 2, wide, hidden);
    h = mul(tape, std::move(h), index(tape, call.inputs[1], {tokens}, tokens.numel));
    out = index_add_in_place(tape, std::move(out), tokens, to(tape, std::move(h), x.dtype));
  }
  return out;
}

Tensor chunked_experts(Tape& tape, const OperatorCall& call) {
  const Tensor& x = call.inputs[0];
  const model::MixtureShape& mixture = call.op->mixture;
  const std::int64_t hidden = call.input_shapes[0].back();
  const std::int64_t wide = mixture.intermediate;
  Tensor out = zeros_like(tape, x.numel, x.dtype);
  const std::vector<std::int64_t> numels(static_cast<std::size_t>(mixture.experts),
                                         checked_multiply(wide, hidden));
  std::vector<std::vector<Tensor>> parts;  // of w1, v1, w2
  for (const Tensor& weight : call.weights) {
    parts.push_back(split(tape, weight, numels));
    for (Tensor& part : parts.back()) part = operand(std::move(part));
  }
  for (std::size_t e = 0; e < numels.size(); ++e) {
    const Tensor& slots = call.inputs[2 + 2 * e];
    const Tensor& tokens = call.inputs[3 + 2 * e];
    const Tensor own = index(tape, x, {tokens}, checked_multiply(tokens.numel, hidden));
    Tensor gate = linear(tape, own, parts[0][e], Tensor(), hidden, wide);
    const Tensor up = linear(tape, own, parts[1][e], Tensor(), hidden, wide);
    gate = activation(tape, call.op->activation, std::move(gate));
    Tensor h = mul(tape, std::move(gate), up);
    h = linear(tape, h, parts[2][e], Tensor(), wide, hidden);
    h = mul(tape, std::move(h), index(tape, call.inputs[1], {tokens, slots}, tokens.numel));
    out = index_add_in_place(tape, std::move(out), tokens, std::move(h));
  }
  return out;
}

// hidden.repeat(E, 1): a copy, whose gradient is summed over the experts.
Tensor repeated(Tape& tape, const Tensor& x, std::int64_t times) {
  tape.begin_operation(OperationKind::pointwise, {&x});
  Tensor y = tape.allocate(checked_multiply(x.numel, times), x.dtype, "repeat");
  tape.pointwise("repeat", 2 * bytes_of(y));
  if (!tape.tracks({&x})) return y;
  const std::int64_t numel = x.numel;
  tape.track(y, "repeat", {Tape::edge_of(x)}, {}, [numel](Tape& t, const Gradients& gradients) {
    Tensor sum = t.allocate(numel, gradients[0].dtype, "sum");
    t.pointwise("sum", bytes_of(gradients[0]) + bytes_of(sum));
    return Gradients{sum};
  });
  return y;
}

Tensor dense_experts(Tape& tape, const OperatorCall& call) {
  const Tensor& x = call.inputs[0];
  const model::MixtureShape& mixture = call.op->mixture;
  const std::int64_t hidden = call.input_shapes[0].back();
  const std::int64_t tokens = x.numel / hidden;
  const std::int64_t wide = mixture.intermediate;
  Tensor rows = repeated(tape, x, mixture.experts);
  rows = mul(tape, std::move(rows), contiguous(tape, view(call.inputs[1], false)));
  rows.dense = true;
  Tensor both = matmul(tape, std::move(rows), call.weights[0], mixture.experts, tokens, 2 * wide,
                       hidden, {.one_sample = true});
  std::vector<Tensor> halves = split(tape, both, {both.numel / 2, both.numel / 2});
  both = Tensor();
  Tensor gate = activation(tape, call.op->activation, std::move(halves[0]));
  Tensor h = mul(tape, std::move(halves[1]), std::move(gate));
  h.dense = true;
  h = matmul(tape, std::move(h), call.weights[1], mixture.experts, tokens, hidden, wide,
             {.one_sample = true});
  return sum_last(tape, std::move(h), mixture.experts);
}

}  // namespace

Tensor spread(Tape& tape, Tensor argument, const Tensor& indices, std::int64_t numel) {
  const Tensor values = std::move(argument);
  tape.begin_operation(OperationKind::other, {&values, &indices});
  Tensor y = tape.allocate(numel, values.dtype, "scatter_");
  tape.pointwise("scatter_", bytes_of(y) + 2 * bytes_of(values));
  if (!tape.tracks({&values})) return y;
  const std::int64_t chosen = values.numel;
  tape.track(y, "scatter_", {Tape::edge_of(values)}, {indices.storage},
             [chosen](Tape& t, const Gradients& gradients) {
               Tensor dx = t.allocate(chosen, gradients[0].dtype, "gather");
               t.pointwise("gather", 2 * bytes_of(dx));
               return Gradients{dx};
             });
  return y;
}

std::vector<std::int64_t> even_parts(std::int64_t rows, std::int64_t experts, std::int64_t width) {
  std::vector<std::int64_t> numels;
  for (std::int64_t e = 0; e < experts; ++e) {
    numels.push_back((rows / experts + (e < rows % experts ? 1 : 0)) * width);
  }
  return numels;
}

Tensor joined_rows(Tape& tape, const std::vector<Tensor>& parts) {
  tape.begin_operation(OperationKind::pointwise);
  std::int64_t numel = 0;
  std::vector<Edge> edges;
  std::vector<std::int64_t> numels;
  bool tracked = false;
  for (const Tensor& each : parts) {
    numel += each.numel;
    numels.push_back(each.numel);
    edges.push_back(Tape::edge_of(each));
    tracked = tracked || tape.tracks({&each});
  }
  Tensor y = tape.allocate(numel, parts.front().dtype, "cat");
  tape.pointwise("cat", 2 * bytes_of(y));
  if (!tracked) return y;
  tape.track(y, "cat", std::move(edges), {}, [numels](Tape&, const Gradients& gradients) {
    Gradients views;
    for (const std::int64_t own : numels) {
      views.push_back(view(gradients[0], true));
      views.back().numel = own;
    }
    return views;
  });
  return y;
}

Tensor own_experts(Tape& tape, const OperatorCall& call) {
  switch (call.op->mixture.code) {
    case model::ExpertCode::sorted: return sorted_experts(tape, call);
    case model::ExpertCode::selected: return selected_experts(tape, call);
    case model::ExpertCode::chunked: return chunked_experts(tape, call);
    default: return dense_experts(tape, call);
  }
}

}  // namespace steelyard::step
