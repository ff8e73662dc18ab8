#include <utility>

#include "step/primitives.h"

namespace steelyard::step {

namespace {

using Gradients = std::vector<Tensor>;

// Input, statistics per row and the affine parameters: layer_norm and the fused rms_norm.
Tensor normalised(Tape& tape, std::string_view name, Tensor argument, const Tensor& weight,
                  const Tensor& bias, std::int64_t last, int statistics) {
  const Tensor x = std::move(argument);
  const std::int64_t rows = x.numel / last;
  tape.begin_operation(OperationKind::reduction, {&x, &weight, &bias});
  // The kernel wants rows that lie together (layer_norm_kernel.cu: expect_contiguous).
  const bool copies = !x.dense && !tape.options().compiled;
  const Tensor copy = copies ? tape.allocate(x.numel, x.dtype, "clone") : Tensor();
  Tensor y = tape.allocate(x.numel, x.dtype, name);
  std::vector<StorageRef> saved = {x.storage};
  for (int i = 0; i < statistics; ++i) {  // fp32 even for 16-bit input (layer_norm_kernel.cu)
    saved.push_back(tape.allocate(rows, DType::fp32, name).storage);
  }
  tape.pointwise(name, bytes_of(x) + bytes_of(y));
  if (!tape.tracks({&x}) && !(weight && tape.tracks({&weight}))) return y;
  const bool wants_x = x.requires_grad;
  const bool wants_weight = weight && weight.requires_grad;
  const bool wants_bias = bias && bias.requires_grad;
  const DType affine = weight ? weight.dtype : x.dtype;
  const std::string backward_name = std::string(name) + "_backward";
  std::vector<Edge> edges = {Tape::edge_of(x)};
  edges.push_back(weight ? Tape::edge_of(weight) : Edge());
  edges.push_back(bias ? Tape::edge_of(bias) : Edge());
  tape.track(y, name, std::move(edges), std::move(saved), [=](Tape& t, const Gradients& gradients) {
    const Tensor& dy = gradients[0];
    Gradients result(3);
    if (wants_x) result[0] = t.allocate(dy.numel, dy.dtype, backward_name);
    if (wants_weight) result[1] = t.allocate(last, affine, backward_name);
    if (wants_bias) result[2] = t.allocate(last, affine, backward_name);
    t.pointwise(backward_name, 5 * bytes_of(dy));
    return result;
  });
  return y;
}

}  // namespace

Tensor layer_norm(Tape& tape, Tensor x, const Tensor& weight, const Tensor& bias,
                  std::int64_t last) {
  return normalised(tape, "layer_norm", to_fp32_if_autocast(tape, std::move(x)), weight, bias, last,
                    2);
}

Tensor fused_rms_norm(Tape& tape, Tensor x, const Tensor& weight, std::int64_t last) {
  return normalised(tape, "rms_norm", std::move(x), weight, Tensor(), last, 1);
}

namespace {

// Inductor decomposes softmax into pointwise code over a maximum and a sum per row, both kept.
struct RowStatistics {
  Tensor maximum, sum;
};
RowStatistics row_statistics(Tape& tape, std::int64_t rows) {
  if (!tape.options().compiled || rows == 0) return {};
  return {tape.allocate(rows, DType::fp32, "amax"), tape.allocate(rows, DType::fp32, "sum")};
}

std::vector<StorageRef> saved_by_softmax(const Tape& tape, const Tensor& x, const Tensor& y) {
  if (tape.options().softmax_saves_input) return {x.storage, y.storage};
  return {y.storage};
}

}  // namespace

Tensor softmax(Tape& tape, Tensor argument, DType dtype, std::int64_t last) {
  // _softmax(half_to_float) converts inside the kernel, but takes fp16 only: anything else is
  // copied first (aten/src/ATen/native/SoftMax.cpp).
  const bool converts = argument.dtype == DType::fp16 && dtype == DType::fp32;
  const Tensor x = converts ? std::move(argument) : to(tape, std::move(argument), dtype);
  tape.begin_operation(OperationKind::reduction, {&x});
  const RowStatistics statistics = row_statistics(tape, last == 0 ? 0 : x.numel / last);
  Tensor y = tape.allocate(x.numel, dtype, "softmax");
  tape.pointwise("softmax", bytes_of(x) + bytes_of(y));
  if (!tape.tracks({&x})) return y;
  const DType before = x.dtype;
  tape.track(y, "softmax", {Tape::edge_of(x)}, saved_by_softmax(tape, x, y),
             [before](Tape& t, const Gradients& gradients) {
               const Tensor& dy = gradients[0];
               Tensor dx = t.allocate(dy.numel, before, "softmax_backward");
               t.pointwise("softmax_backward", 2 * bytes_of(dy) + bytes_of(dx));
               return Gradients{dx};
             });
  return y;
}

Tensor cross_entropy(Tape& tape, Tensor argument, const Tensor& labels, std::int64_t rows) {
  const Tensor logits = std::move(argument);
  tape.begin_operation(OperationKind::reduction, {&logits});
  // F.cross_entropy names the type of its own log_softmax, so autocast does not widen it, but
  // nll_loss is on autocast's fp32 list (LossNLL.cpp:652, autocast_mode.h:501).
  const RowStatistics statistics = row_statistics(tape, rows);
  Tensor log_probabilities = tape.allocate(logits.numel, logits.dtype, "log_softmax");
  tape.pointwise("log_softmax", bytes_of(logits) + bytes_of(log_probabilities));
  if (tape.tracks({&logits})) {
    tape.track(log_probabilities, "log_softmax", {Tape::edge_of(logits)},
               saved_by_softmax(tape, logits, log_probabilities),
               [](Tape& t, const Gradients& gradients) {
                 const Tensor& dy = gradients[0];
                 Tensor dx = t.allocate(dy.numel, dy.dtype, "log_softmax_backward");
                 t.pointwise("log_softmax_backward", 3 * bytes_of(dy));
                 return Gradients{dx};
               });
  }
  const Tensor likelihood = to_fp32_if_autocast(tape, log_probabilities);
  log_probabilities = Tensor();
  tape.begin_operation(OperationKind::reduction, {&likelihood, &labels});
  Tensor loss = tape.allocate(1, likelihood.dtype, "nll_loss");
  const Tensor total_weight = tape.allocate(1, likelihood.dtype, "nll_loss");
  tape.pointwise("nll_loss", bytes_of(labels) + bytes_of(rows, likelihood.dtype));
  if (tape.tracks({&likelihood})) {
    const std::int64_t numel = likelihood.numel;
    const DType dtype = likelihood.dtype;
    tape.track(loss, "nll_loss", {Tape::edge_of(likelihood)},
               {likelihood.storage, labels.storage, total_weight.storage},
               [numel, dtype](Tape& t, const Gradients&) {
                 Tensor dx = t.allocate(numel, dtype, "nll_loss_backward");
                 t.pointwise("nll_loss_backward", bytes_of(dx));
                 return Gradients{dx};
               });
  }
  return loss;
}

Tensor fused_cross_entropy(Tape& tape, Tensor argument, const Tensor& labels, std::int64_t rows,
                           bool in_place) {
  const Tensor logits = std::move(argument);
  tape.begin_operation(OperationKind::other, {&logits, &labels});
  Tensor loss = tape.allocate(rows, DType::fp32, "fused_cross_entropy");  // reduction="none"
  const Tensor logsumexp = tape.allocate(rows, DType::fp32, "fused_cross_entropy");
  tape.pointwise("fused_cross_entropy", bytes_of(logits));
  if (tape.tracks({&logits})) {
    const StorageRef own = in_place ? logits.storage : nullptr;
    const std::int64_t numel = logits.numel;
    const DType dtype = logits.dtype;
    tape.track(loss, "fused_cross_entropy", {Tape::edge_of(logits)},
               {logits.storage, logsumexp.storage, labels.storage},
               [numel, dtype, own](Tape& t, const Gradients&) {
                 Tensor dx = own ? t.alias(own, numel, dtype)
                                 : t.allocate(numel, dtype, "fused_cross_entropy_backward");
                 t.pointwise("fused_cross_entropy_backward", 2 * bytes_of(dx));
                 return Gradients{dx};
               });
  }
  return loss;
}

}  // namespace steelyard::step
