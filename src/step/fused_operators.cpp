#include "step/fused_operators.h"

#include <utility>

namespace steelyard::step {

namespace {

using Gradients = std::vector<Tensor>;

// The gradient of a bias [width]: autograd sums the gradient of what it was added to.
Tensor bias_gradient(Tape& tape, const Tensor& gradient, std::int64_t width) {
  Tensor sum = tape.allocate(width, gradient.dtype, "sum");
  tape.pointwise("sum", bytes_of(gradient));
  return sum;
}

}  // namespace

Tensor bias_activation(Tape& tape, Tensor argument, const Tensor& bias, std::int64_t width,
                       bool gated, bool in_products) {
  const Tensor x = std::move(argument);
  tape.begin_operation();
  Tensor y = tape.allocate(gated ? x.numel / 2 : x.numel, x.dtype, "bias_activation");
  if (!in_products) tape.pointwise("bias_activation", bytes_of(x) + bytes_of(y));
  if (!tape.tracks({&x}) && !(bias && tape.tracks({&bias}))) return y;
  const std::int64_t numel = x.numel;
  const bool wants_bias = bias && bias.requires_grad;
  tape.track(y, "bias_activation", {Tape::edge_of(x), bias ? Tape::edge_of(bias) : Edge()},
             {x.storage}, [=](Tape& t, const Gradients& gradients) {
               const Tensor& dy = gradients[0];
               Gradients result(2);
               result[0] = t.allocate(numel, dy.dtype, "bias_activation_backward");
               if (!in_products) t.pointwise("bias_activation_backward", bytes_of(dy) + 2 * bytes_of(result[0]));
               if (wants_bias) result[1] = bias_gradient(t, result[0], width);
               return result;
             });
  return y;
}

Tensor bias_dropout_add(Tape& tape, Tensor argument, Tensor other, const Tensor& bias,
                        std::int64_t width, double probability) {
  const Tensor x = std::move(argument);
  const Tensor residual = std::move(other);
  tape.begin_operation();
  Tensor y = tape.allocate(x.numel, residual.dtype, "bias_dropout_add");
  Tensor mask;
  if (probability > 0.0) mask = tape.allocate(x.numel, DType::boolean, "bias_dropout_add");
  tape.pointwise("bias_dropout_add", 3 * bytes_of(x));
  if (!tape.tracks({&x, &residual})) return y;
  std::vector<StorageRef> saved;
  if (mask) saved.push_back(mask.storage);
  const bool drops = probability > 0.0;
  const bool wants_bias = bias && bias.requires_grad;
  tape.track(y, "bias_dropout_add",
             {Tape::edge_of(x), Tape::edge_of(residual), bias ? Tape::edge_of(bias) : Edge()},
             std::move(saved), [=](Tape& t, const Gradients& gradients) {
               const Tensor& dy = gradients[0];
               Gradients result(3);
               result[0] = dy;  // without dropout the gradient passes through
               result[1] = dy;
               if (drops) {
                 result[0] = t.allocate(dy.numel, dy.dtype, "bias_dropout_add_backward");
                 t.pointwise("bias_dropout_add_backward", 2 * bytes_of(dy) + Bytes(dy.numel));
               }
               if (wants_bias) result[2] = bias_gradient(t, result[0], width);
               return result;
             });
  return y;
}

Tensor fused_rotary(Tape& tape, Tensor argument, const Tensor& table) {
  const Tensor x = std::move(argument);
  tape.begin_operation();
  Tensor y = tape.allocate(x.numel, x.dtype, "fused_rotary");
  tape.pointwise("fused_rotary", 2 * bytes_of(x) + bytes_of(table));
  if (!tape.tracks({&x})) return y;
  tape.track(y, "fused_rotary", {Tape::edge_of(x)}, {table.storage},
             [](Tape& t, const Gradients& gradients) {
               const Tensor& dy = gradients[0];
               Tensor dx = t.allocate(dy.numel, dy.dtype, "fused_rotary_backward");
               t.pointwise("fused_rotary_backward", 2 * bytes_of(dy));
               return Gradients{dx};
             });
  return y;
}

Tensor vocab_parallel_cross_entropy(Tape& tape, Tensor argument, std::int64_t rows, bool compiled) {
  const Tensor logits = std::move(argument);
  tape.begin_operation();
  Tensor widened;  // held by the function's frame
  if (compiled) widened = tape.allocate(logits.numel, DType::fp32, "vocab_parallel_cross_entropy");
  Tensor probabilities = tape.allocate(logits.numel, DType::fp32, "vocab_parallel_cross_entropy");
  Tensor loss = tape.allocate(rows, DType::fp32, "vocab_parallel_cross_entropy");
  const Tensor mask = tape.allocate(rows, DType::boolean, "vocab_parallel_cross_entropy");
  const Tensor target = tape.allocate(rows, DType::int64, "vocab_parallel_cross_entropy");
  // Widened, maximum, subtracted, exponential, sum, divided: each reads or writes all of them.
  tape.pointwise("vocab_parallel_cross_entropy", bytes_of(logits) + 8 * bytes_of(probabilities));
  if (!tape.tracks({&logits})) return loss;
  const DType before = logits.dtype;
  const StorageRef own = probabilities.storage;
  const std::int64_t numel = logits.numel;
  tape.track(loss, "vocab_parallel_cross_entropy", {Tape::edge_of(logits)},
             {own, mask.storage, target.storage}, [=](Tape& t, const Gradients&) {
               Tensor dx = t.alias(own, numel, DType::fp32);
               t.pointwise("vocab_parallel_cross_entropy_backward", 2 * bytes_of(dx));
               if (before == DType::fp32) return Gradients{dx};
               // The engine casts a gradient to the type of its input.
               Tensor cast = t.allocate(numel, before, "to");
               t.pointwise("to", bytes_of(dx) + bytes_of(cast));
               return Gradients{cast};
             });
  return loss;
}

Tensor fused_softmax_attention(Tape& tape, Tensor q, Tensor k, Tensor v, const AttentionDims& dims,
                               double probability, const SoftmaxAttention& how) {
  const std::int64_t batch = dims.samples * dims.heads;
  // Views of [S,B,n,d] are batched without a copy: strides say all that the product needs.
  q = view(std::move(q), true);
  k = view(std::move(k), true);
  v = view(std::move(v), true);
  // torch.baddbmm(empty, q, k, beta=0): the first operand is not read, but it is there. With ALiBi
  // it is the bias, a view of one [heads, 1, keys] tensor (Megatron-DeepSpeed
  // model/transformer.py).
  Tensor unread;
  if (!how.global_buffer && !how.adds_bias) {
    unread = tape.allocate(checked_multiply(batch, dims.queries * dims.keys), q.dtype, "empty");
  }
  // The function's variable keeps the scores until it returns.
  const Tensor scores = matmul(tape, q, k, batch, dims.queries, dims.keys, dims.head_dim);
  unread = q = k = Tensor();
  const DType dtype = scores.dtype;
  Tensor weights = softmax(tape, how.widens ? to(tape, scores, DType::fp32) : scores,
                           how.widens ? DType::fp32 : dtype);
  weights = dropout(tape, to(tape, std::move(weights), dtype), probability);
  Tensor y = matmul(tape, std::move(weights), v, batch, dims.queries, dims.values(), dims.keys);
  return contiguous(tape, view(std::move(y), false));
}

}  // namespace steelyard::step
