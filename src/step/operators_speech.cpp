#include "step/operators_speech.h"

#include <cmath>
#include <utility>

#include "step/primitives.h"
#include "step/primitives_image.h"

namespace steelyard::step {

namespace {

using model::OperatorKind;
using Gradients = std::vector<Tensor>;

// torch._weight_norm over the last dimension: one kernel that writes g * v / |v| and the norms,
// both kept for backward (native/WeightNorm.cpp, cuda/WeightNorm.cu; derivatives.yaml,
// _weight_norm_interface). Autocast leaves it in the weights' own type.
Tensor weight_norm(Tape& tape, const Tensor& gain, const Tensor& direction) {
  tape.begin_operation(OperationKind::other, {&gain, &direction});
  Tensor w = tape.allocate(direction.numel, direction.dtype, "weight_norm");
  const Tensor norms = tape.allocate(gain.numel, DType::fp32, "weight_norm");
  tape.pointwise("weight_norm", 2 * bytes_of(direction) + bytes_of(w));
  if (!tape.tracks({&gain, &direction})) return w;
  const bool wants_gain = gain.requires_grad;
  const bool wants_direction = direction.requires_grad;
  const std::int64_t gains = gain.numel;
  const DType dtype = direction.dtype;
  tape.track(w, "weight_norm", {Tape::edge_of(gain), Tape::edge_of(direction)},
             {gain.storage, direction.storage, norms.storage},
             [=](Tape& t, const Gradients& gradients) {
               Gradients result(2);
               if (wants_direction) {
                 result[1] = t.allocate(gradients[0].numel, dtype, "weight_norm_backward");
               }
               if (wants_gain) result[0] = t.allocate(gains, dtype, "weight_norm_backward");
               t.pointwise("weight_norm_backward", 5 * bytes_of(gradients[0]));
               return result;
             });
  return w;
}

// The weight is computed anew by each call, so that autocast casts it without its cache (which is
// for leaves).
Tensor normed_conv(Tape& tape, const OperatorCall& call) {
  const model::Shape& in = call.input_shapes[0];
  const model::Shape& out = call.output_shapes[0];
  const Tensor w = weight_norm(tape, call.weights[0], call.weights[1]);
  ConvDims dims;
  dims.samples = out.at(0);
  dims.inputs = in.at(1);
  dims.outputs = out.at(1);
  dims.pixels = out.at(2);
  dims.groups = call.op->groups;
  dims.window = w.numel / (dims.outputs * (dims.inputs / dims.groups));
  return conv(tape, call.inputs[0], to_compute(tape, w), call.weights[2], dims);
}

// x[mask] = vector, or zeros: index_put_ keeps the mask; its derivative is a copy of the gradient
// with zeros in these places, and the gradient's rows of them for the vector (derivatives.yaml).
Tensor masked_in_place(Tape& tape, const OperatorCall& call) {
  const std::int64_t width = call.input_shapes[0].back();
  const Tensor& x = call.inputs[0];
  const Tensor vector = call.weights.empty() ? Tensor() : call.weights[0];
  const Tensor mask = tape.allocate(x.numel / width, DType::boolean, "mask");
  tape.begin_operation(OperationKind::other, {&x, &vector});
  tape.pointwise("index_put_", bytes_of(x));
  Tensor y = x;
  if (!tape.tracks({&x}) && !(vector && tape.tracks({&vector}))) return y;
  const double share = call.op->probability;
  const auto written = static_cast<std::int64_t>(
      std::ceil(share * static_cast<double>(x.numel / width)) * static_cast<double>(width));
  const bool wants_x = x.requires_grad;
  const bool wants_vector = vector && vector.requires_grad;
  const DType of_vector = vector ? vector.dtype : x.dtype;
  y.requires_grad = true;
  std::vector<Edge> edges = {Tape::edge_of(x)};
  if (vector) edges.push_back(Tape::edge_of(vector));
  tape.track(y, "index_put_", std::move(edges), {mask.storage},
             [=](Tape& t, const Gradients& gradients) {
               const Tensor& dy = gradients[0];
               Gradients result(vector ? 2 : 1);
               if (wants_x) {
                 result[0] = t.allocate(dy.numel, dy.dtype, "clone");
                 t.pointwise("index_put_backward", 2 * bytes_of(dy));
               }
               if (!wants_vector) return result;
               const Tensor rows = t.allocate(written, dy.dtype, "index");
               result[1] = t.allocate(width, of_vector, "sum");
               t.pointwise("index", 2 * bytes_of(rows));
               return result;
             });
  return y;
}

// x * mask.unsqueeze(-1).repeat(1, 1, H).to(x.dtype)
Tensor times_mask(Tape& tape, const OperatorCall& call) {
  const Tensor& x = call.inputs[0];
  Tensor wide;
  {
    const Tensor repeated = tape.allocate(x.numel, DType::boolean, "repeat");
    wide = tape.allocate(x.numel, x.dtype, "to");
    tape.pointwise("to", bytes_of(repeated) + bytes_of(wide));
  }
  return mul(tape, x, wide);
}

// F.log_softmax(logits, dim=-1, dtype=torch.float32): one kernel from the logits' type; its result
// is kept.
Tensor wide_log_softmax(Tape& tape, const Tensor& logits) {
  tape.begin_operation(OperationKind::reduction, {&logits});
  Tensor y = tape.allocate(logits.numel, DType::fp32, "log_softmax");
  tape.pointwise("log_softmax", bytes_of(logits) + bytes_of(y));
  if (!tape.tracks({&logits})) return y;
  const DType before = logits.dtype;
  tape.track(y, "log_softmax", {Tape::edge_of(logits)}, {y.storage},
             [before](Tape& t, const Gradients& gradients) {
               Tensor dx = t.allocate(gradients[0].numel, before, "log_softmax_backward");
               t.pointwise("log_softmax_backward", 3 * bytes_of(gradients[0]));
               return Gradients{dx};
             });
  return y;
}

// F.ctc_loss without cuDNN, as the models ask for it (native/cuda/LossCTC.cu): the probabilities of
// all prefixes, [B,T,2L+1], once forward and once more backward.
Tensor ctc_loss(Tape& tape, const OperatorCall& call) {
  const std::int64_t samples = call.input_shapes[0].at(0);
  const std::int64_t frames = call.input_shapes[0].at(1);
  const std::int64_t states =
      checked_multiply(checked_multiply(samples, frames), 2 * call.input_shapes[1].back() + 1);
  const Tensor log_probs = wide_log_softmax(tape, call.inputs[0]);
  const Tensor targets = tape.allocate(call.inputs[1].numel, DType::int64, "masked_select");
  tape.begin_operation(OperationKind::reduction, {&log_probs});
  const Tensor alpha = tape.allocate(states, DType::fp32, "ctc_loss");
  const Tensor likelihood = tape.allocate(samples, DType::fp32, "ctc_loss");
  Tensor loss = tape.allocate(1, DType::fp32, "sum");
  tape.pointwise("ctc_loss", 2 * bytes_of(alpha) + bytes_of(log_probs));
  if (!tape.tracks({&log_probs})) return loss;
  const std::int64_t numel = log_probs.numel;
  tape.track(loss, "ctc_loss", {Tape::edge_of(log_probs)},
             {log_probs.storage, targets.storage, alpha.storage, likelihood.storage},
             [numel, states](Tape& t, const Gradients&) {
               const Tensor beta = t.allocate(states, DType::fp32, "ctc_loss_backward");
               Tensor dx = t.allocate(numel, DType::fp32, "ctc_loss_backward");
               t.pointwise("ctc_loss_backward", 3 * bytes_of(beta) + 2 * bytes_of(dx));
               return Gradients{dx};
             });
  return loss;
}

}  // namespace

std::vector<Tensor> run_speech_operator(Tape& tape, const OperatorCall& call) {
  switch (call.op->kind) {
    case OperatorKind::normed_conv: return {normed_conv(tape, call)};
    case OperatorKind::mask_tokens:
      return {call.op->in_place ? masked_in_place(tape, call) : times_mask(tape, call)};
    case OperatorKind::ctc_loss: return {ctc_loss(tape, call), call.inputs[0]};
    default: return {};
  }
}

}  // namespace steelyard::step
