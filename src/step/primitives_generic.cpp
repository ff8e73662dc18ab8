#include "step/primitives_generic.h"

#include <algorithm>
#include <utility>

#include "step/primitives.h"

namespace steelyard::step {

namespace {

using Gradients = std::vector<Tensor>;
using model::ArithmeticKind;
using model::Saves;

Tensor result(Tape& tape, std::string_view name, const Outcome& outcome) {
  Tensor y = tape.allocate(outcome.numel, outcome.dtype, name);
  y.dense = outcome.dense;
  return y;
}

bool is_real(DType dtype) {
  return dtype != DType::boolean && dtype != DType::int64 && dtype != DType::int32;
}

// Temporaries of a derivative that is an expression live until its end.
Tensor gradient(Tape& t, const Tensor& dy, std::int64_t numel, std::string_view name,
                int temporaries) {
  std::vector<Tensor> held;
  for (int i = 0; i < temporaries; ++i) {
    held.push_back(t.allocate(numel, dy.dtype, name));
    t.pointwise(name, 3 * bytes_of(held.back()));
  }
  Tensor dx = t.allocate(numel, dy.dtype, name);
  dx.dense = dy.dense;
  t.pointwise(name, bytes_of(dy) + 2 * bytes_of(dx));
  return dx;
}

}  // namespace

Tensor unary(Tape& tape, Tensor argument, Saves saves, const Outcome& outcome) {
  const Tensor x = std::move(argument);
  const bool reduces = outcome.numel < x.numel;
  const std::string_view name = reduces ? "reduce" : "unary";
  tape.begin_operation(reduces ? OperationKind::reduction : OperationKind::pointwise, {&x});
  Tensor y = result(tape, name, outcome);
  tape.pointwise(name, bytes_of(x) + bytes_of(y));
  if (!outcome.differentiable || !is_real(x.dtype) || !tape.tracks({&x})) return y;
  std::vector<StorageRef> saved;
  if (saves == Saves::input || saves == Saves::both) saved.push_back(x.storage);
  if (saves == Saves::output || saves == Saves::both) saved.push_back(y.storage);
  const std::int64_t numel = x.numel;
  // amax, prod, norm: evenly_distribute_backward and the like compare the input with the result.
  const int temporaries = reduces && saves != Saves::nothing ? 1 : 0;
  tape.track(y, name, {Tape::validated_edge_of(x)}, std::move(saved),
             [numel, temporaries](Tape& t, const Gradients& gradients) {
               return Gradients{gradient(t, gradients[0], numel, "unary_backward", temporaries)};
             });
  return y;
}

namespace {

// Storages that the derivatives of the two operands read.
std::vector<StorageRef> saved_by(ArithmeticKind kind, const Tensor& a, const Tensor& b,
                                 const Tensor& y) {
  std::vector<StorageRef> saved;
  switch (kind) {
    case ArithmeticKind::add:
    case ArithmeticKind::compare: break;
    case ArithmeticKind::multiply:
      if (b.requires_grad) saved.push_back(a.storage);
      if (a.requires_grad) saved.push_back(b.storage);
      break;
    case ArithmeticKind::divide:
      if (b.requires_grad) saved.push_back(a.storage);
      saved.push_back(b.storage);
      break;
    case ArithmeticKind::power:
      saved = {a.storage, b.storage};
      if (b.requires_grad) saved.push_back(y.storage);
      break;
    case ArithmeticKind::choose: saved = {a.storage, b.storage}; break;
  }
  return saved;
}

// Temporaries of the derivative by the first and by the second operand (FunctionsManual.cpp:
// div_tensor_other_grad, pow_backward_self, pow_backward_exponent; maximum: a mask).
int temporaries_of(ArithmeticKind kind, bool second) {
  switch (kind) {
    case ArithmeticKind::divide: return second ? 2 : 0;
    case ArithmeticKind::power: return 2;
    case ArithmeticKind::choose: return 1;
    default: return 0;
  }
}

}  // namespace

Tensor binary(Tape& tape, Tensor first, Tensor second, ArithmeticKind kind,
              const Outcome& outcome) {
  const Tensor a = std::move(first);
  const Tensor b = std::move(second);
  const std::string_view name = kind == ArithmeticKind::add        ? "add"
                                : kind == ArithmeticKind::multiply ? "mul"
                                                                   : "binary";
  tape.begin_operation(OperationKind::pointwise, {&a, &b});
  Tensor y = result(tape, name, outcome);
  tape.pointwise(name, bytes_of(a) + bytes_of(b) + bytes_of(y));
  if (!outcome.differentiable || kind == ArithmeticKind::compare || !tape.tracks({&a, &b}))
    return y;
  const bool wants[2] = {a.requires_grad, b.requires_grad};
  tape.track(y, name, {Tape::validated_edge_of(a), Tape::validated_edge_of(b)},
             saved_by(kind, a, b, y), [=](Tape& t, const Gradients& gradients) {
               Gradients results(2);
               const Tensor& dy = gradients[0];
               for (const std::size_t i : {1, 0}) {
                 if (!wants[i]) continue;
                 results[i] = kind == ArithmeticKind::add
                                  ? dy
                                  : gradient(t, dy, dy.numel, "binary_backward",
                                             temporaries_of(kind, i == 1));
               }
               return results;
             });
  return y;
}

Tensor select(Tape& tape, const Tensor& condition, Tensor first, Tensor second,
              const Outcome& outcome) {
  const Tensor a = std::move(first);
  const Tensor b = std::move(second);
  tape.begin_operation(OperationKind::pointwise, {&condition, &a, &b});
  Tensor y = result(tape, "where", outcome);
  tape.pointwise("where", bytes_of(condition) + bytes_of(a) + bytes_of(b) + bytes_of(y));
  if (!outcome.differentiable || !tape.tracks({&a, &b})) return y;
  const bool wants[2] = {a.requires_grad, b.requires_grad};
  tape.track(y, "where", {Tape::validated_edge_of(a), Tape::validated_edge_of(b)},
             {condition.storage}, [=](Tape& t, const Gradients& gradients) {
               Gradients results(2);
               for (const std::size_t i : {1, 0}) {
                 if (!wants[i]) continue;
                 results[i] = gradient(t, gradients[0], gradients[0].numel, "where", 0);
               }
               return results;
             });
  return y;
}

Tensor xielu(Tape& tape, const Tensor& x, const Tensor& positive, const Tensor& negative) {
  using model::ArithmeticKind;
  using model::Saves;
  const DType dtype = x.dtype == positive.dtype ? x.dtype : DType::fp32;
  const Outcome one{.numel = 1, .dtype = positive.dtype};
  const Outcome own{.numel = x.numel, .dtype = x.dtype};
  const Outcome all{.numel = x.numel, .dtype = dtype};
  const auto times = [&](Tensor a, Tensor b) {
    return binary(tape, std::move(a), std::move(b), ArithmeticKind::multiply, all);
  };
  Tensor above = times(times(unary(tape, positive, Saves::input, one), x), x);
  above = add(tape, std::move(above), mul_constant(tape, x));
  Tensor below = unary(tape, saving_input(tape, "minimum", x), Saves::output, own);
  below = add(tape, std::move(below), x);
  below = times(std::move(below), add_constant(tape, unary(tape, negative, Saves::input, one)));
  below = add(tape, std::move(below), mul_constant(tape, x));
  const Tensor mask = tape.allocate(x.numel, DType::boolean, "gt");
  return select(tape, mask, std::move(above), std::move(below), all);
}

Tensor scatter(Tape& tape, Tensor first, Tensor second, const Tensor& indices) {
  const Tensor x = std::move(first);
  const Tensor updates = std::move(second);
  tape.begin_operation(OperationKind::other, {&x, &updates});
  Tensor y = tape.allocate(x.numel, x.dtype, "scatter");
  tape.pointwise("scatter", 2 * bytes_of(x) + 2 * bytes_of(updates));
  if (!tape.tracks({&x, &updates})) return y;
  const bool wants[2] = {x.requires_grad, updates.requires_grad};
  const std::int64_t numel = updates.numel;
  std::vector<StorageRef> saved;
  if (indices) saved.push_back(indices.storage);
  tape.track(y, "scatter", {Tape::edge_of(x), Tape::edge_of(updates)}, std::move(saved),
             [=](Tape& t, const Gradients& gradients) {
               const Tensor& dy = gradients[0];
               Gradients results(2);
               if (wants[0]) results[0] = gradient(t, dy, dy.numel, "scatter", 0);
               if (wants[1]) results[1] = gradient(t, dy, numel, "gather", 0);
               return results;
             });
  return y;
}

std::vector<Tensor> recurrent(Tape& tape, const Tensor& argument,
                              const std::vector<Tensor>& arguments, const RecurrentDims& dims) {
  const Tensor x = to_compute(tape, argument);
  std::vector<Tensor> weights;
  bool tracks = tape.tracks({&x});
  std::vector<Edge> edges = {Tape::edge_of(x)};
  std::vector<StorageRef> saved = {x.storage};
  std::vector<std::int64_t> numels;
  for (const Tensor& weight : arguments) {
    weights.push_back(product_weight(tape, weight));
    tracks = tracks || tape.tracks({&weights.back()});
    edges.push_back(Tape::edge_of(weights.back()));
    saved.push_back(weights.back().storage);
    numels.push_back(weights.back().requires_grad ? weights.back().numel : 0);
  }
  tape.begin_operation(OperationKind::other, {&x});
  const std::int64_t rows = checked_multiply(dims.steps, dims.samples);
  const std::int64_t states = checked_multiply(rows, dims.directions * dims.hidden);
  Tensor y = tape.allocate(states, x.dtype, "rnn");
  Tensor last = tape.allocate(states / dims.steps, x.dtype, "rnn");
  const std::int64_t gates = dims.gates * dims.hidden * dims.directions;
  // cuDNN's reserve holds the gates of every step (cudnnGetRNNTempSpaceSizes tells how much only at
  // run time; RNN.cpp saves it whole).
  const Tensor reserve =
      tracks ? tape.allocate(checked_multiply(rows, gates), x.dtype, "rnn reserve") : Tensor();
  const auto products = [=](Tape& t, std::string_view name) {
    t.gemm(name, x.dtype, rows, gates, dims.inputs, 1, bytes_of(y));
    t.gemm(name, x.dtype, dims.samples, gates, dims.hidden, dims.steps, bytes_of(y));
  };
  products(tape, "rnn");
  if (!tracks) return {y, last};
  saved.push_back(y.storage);
  saved.push_back(reserve.storage);
  const bool wants_x = x.requires_grad;
  const std::int64_t numel = x.numel;
  const DType dtype = x.dtype;
  const std::int64_t states_bytes = states;
  const NodeRef node =
      tape.make_node("rnn", std::move(edges), std::move(saved), [=](Tape& t, const Gradients&) {
        Gradients results(1);
        if (wants_x) results[0] = t.allocate(numel, dtype, "rnn_backward");
        for (const std::int64_t each : numels) {
          results.push_back(each > 0 ? t.allocate(each, dtype, "rnn_backward") : Tensor());
        }
        for (int twice = 0; twice < 2; ++twice) {
          t.gemm("rnn_backward", dtype, rows, gates, dims.inputs, 1, bytes_of(states_bytes, dtype));
          t.gemm("rnn_backward", dtype, dims.samples, gates, dims.hidden, dims.steps,
                 bytes_of(states_bytes, dtype));
        }
        return results;
      });
  for (Tensor* output : {&y, &last}) {
    output->node = node;
    output->requires_grad = true;
  }
  last.output = 1;
  return {std::move(y), std::move(last)};
}

}  // namespace steelyard::step
