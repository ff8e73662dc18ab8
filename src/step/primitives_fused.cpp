#include "step/primitives_fused.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "step/primitives.h"

namespace steelyard::step {

namespace {
using Gradients = std::vector<Tensor>;
}

Tensor in_place_rms_norm(Tape& tape, Tensor argument, const Tensor& weight, std::int64_t last) {
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::other, {&x, &weight});
  Tensor y = tape.allocate(x.numel, x.dtype, "fused_rms_norm");
  const Tensor root = tape.allocate(x.numel / last, DType::fp32, "fused_rms_norm");
  tape.pointwise("fused_rms_norm", bytes_of(x) + bytes_of(y));
  if (!tape.tracks({&x, &weight})) return y;
  const bool wants_weight = weight.requires_grad;
  const DType affine = weight.dtype;
  tape.track(y, "fused_rms_norm", {Tape::edge_of(x), Tape::edge_of(weight)},
             {x.storage, root.storage}, [=](Tape& t, const Gradients& gradients) {
               Gradients result = {gradients[0], Tensor()};
               if (wants_weight) result[1] = t.allocate(last, affine, "fused_rms_norm_backward");
               t.pointwise("fused_rms_norm_backward", 3 * bytes_of(gradients[0]));
               return result;
             });
  return y;
}

Tensor in_place_rotary(Tape& tape, const Tensor& x, const Tensor& cosine, const Tensor& sine) {
  // A part of a larger tensor is copied first: the kernel takes contiguous tensors.
  const bool whole = bytes_of(x) == x.storage->bytes;
  Tensor y = whole ? x : contiguous(tape, view(x, false));
  tape.begin_operation(OperationKind::other, {&y, &cosine, &sine});
  tape.pointwise("fused_rotary", 2 * bytes_of(y));
  const Tensor turned = y;
  y.leaf = kNoLeaf;
  if (!tape.tracks({&turned})) return y;
  tape.track(y, "fused_rotary", {Tape::edge_of(turned)}, {cosine.storage, sine.storage},
             [](Tape& t, const Gradients& gradients) {
               t.pointwise("fused_rotary_backward", 2 * bytes_of(gradients[0]));
               return Gradients{gradients[0]};
             });
  return y;
}

Tensor fused_swiglu(Tape& tape, Tensor first, Tensor second) {
  const Tensor gate = std::move(first);
  const Tensor up = std::move(second);
  tape.begin_operation(OperationKind::other, {&gate, &up});
  Tensor y = tape.allocate(gate.numel, gate.dtype, "fused_swiglu");
  tape.pointwise("fused_swiglu", 3 * bytes_of(y));
  if (!tape.tracks({&gate, &up})) return y;
  const StorageRef a = gate.storage;
  const StorageRef b = up.storage;
  const std::int64_t numel = gate.numel;
  const DType dtype = gate.dtype;
  tape.track(y, "fused_swiglu", {Tape::edge_of(gate), Tape::edge_of(up)}, {a, b},
             [=](Tape& t, const Gradients& gradients) {
               t.pointwise("fused_swiglu_backward", 5 * bytes_of(gradients[0]));
               return Gradients{Tape::alias(a, numel, dtype), Tape::alias(b, numel, dtype)};
             });
  return y;
}

namespace {

// Rows of logits at a time (fused_linear_cross_entropy.py): next power of two above
// rows / ceil(vocabulary / hidden), so that a chunk is about as large as x.
std::int64_t chunk_rows(std::int64_t rows, std::int64_t vocabulary, std::int64_t hidden) {
  const std::int64_t parts = ceil_divide(vocabulary, hidden);
  const auto least = static_cast<std::uint64_t>(ceil_divide(rows, parts));
  return std::min(rows, static_cast<std::int64_t>(std::bit_ceil(least)));
}

// logits_chunk = x_chunk @ weight.t(); its gradient in place; the gradients of x and weight.
void linear_loss_chunk(Tape& tape, const Tensor& x, const Tensor& weight, std::int64_t rows,
                       std::int64_t vocabulary, std::int64_t hidden) {
  const DType compute = tape.arithmetic().compute;
  const auto product = [&](std::string_view name, std::int64_t m, std::int64_t n, std::int64_t k) {
    tape.gemm(name, compute, m, n, k, 1, bytes_of(m * k + k * n + m * n, compute));
  };
  // Under autocast the view weight.t() is cast at each use, uncached: it is no leaf.
  const auto cast = [&] {
    if (!tape.arithmetic().autocast || weight.dtype == compute) return Tensor();
    return tape.allocate(weight.numel, compute, "cast_weight");
  };
  Tensor logits;
  {
    const Tensor weight_cast = cast();
    logits = tape.allocate(checked_multiply(rows, vocabulary), compute, "logits_chunk");
    product("mm", rows, vocabulary, hidden);
  }
  tape.pointwise("cross_entropy_chunk", 2 * bytes_of(logits));
  if (x.requires_grad) {
    const Tensor weight_cast = cast();
    const Tensor part = tape.allocate(rows * hidden, compute, "mm_input_gradient");
    product("mm_input_gradient", rows, hidden, vocabulary);
  }
  if (weight.requires_grad) product("mm_weight_gradient", vocabulary, hidden, rows);
}

}  // namespace

Tensor fused_linear_cross_entropy(Tape& tape, const Tensor& x, const Tensor& weight,
                                  const Tensor& labels, std::int64_t rows) {
  const std::int64_t hidden = x.numel / rows;
  const std::int64_t vocabulary = weight.numel / hidden;
  tape.begin_operation(OperationKind::other, {&x, &weight, &labels});
  const bool tracked = tape.tracks({&x, &weight});
  const std::string_view name = "fused_linear_cross_entropy";
  Tensor x_gradient;
  Tensor weight_gradient;
  if (x.requires_grad) x_gradient = tape.allocate(x.numel, x.dtype, name);
  if (weight.requires_grad) weight_gradient = tape.allocate(weight.numel, weight.dtype, name);
  Tensor loss = tape.allocate(1, DType::fp32, name);
  {
    const Tensor losses = tape.allocate(rows, DType::fp32, name);
    const std::int64_t chunk = chunk_rows(rows, vocabulary, hidden);
    for (std::int64_t done = 0; done < rows; done += chunk) {
      linear_loss_chunk(tape, x, weight, std::min(chunk, rows - done), vocabulary, hidden);
    }
    tape.pointwise(name, bytes_of(losses));
  }
  if (!tracked) return loss;
  std::vector<StorageRef> saved;
  if (x_gradient) saved.push_back(x_gradient.storage);
  if (weight_gradient) saved.push_back(weight_gradient.storage);
  tape.track(loss, name, {Tape::edge_of(x), Tape::edge_of(weight)}, std::move(saved),
             [=](Tape& t, const Gradients&) {
               // Multiplied in place by the gradient of the loss.
               t.pointwise("fused_linear_cross_entropy_backward", Bytes(4));
               return Gradients{x_gradient, weight_gradient};
             });
  return loss;
}

}  // namespace steelyard::step
