#include "step/operators_image.h"

#include <utility>

#include "step/operators_generic.h"
#include "step/primitives.h"
#include "step/primitives_generic.h"
#include "step/primitives_image.h"

namespace steelyard::step {

namespace {

using model::OperatorKind;

DType real_type(const Tape& tape) {
  return tape.arithmetic().autocast ? tape.arithmetic().ambient : tape.arithmetic().compute;
}

Tensor run_conv(Tape& tape, const OperatorCall& call) {
  const model::Shape& in = call.input_shapes[0];
  const model::Shape& out = call.output_shapes[0];
  ConvDims dims;
  dims.samples = out.at(0);
  dims.inputs = in.at(1);
  dims.outputs = out.at(1);
  // One, two or three dimensions. A transposed convolution multiplies at its input's pixels.
  const bool transposed = call.op->transposed;
  dims.pixels = model::elements(out) / (out.at(0) * out.at(1));
  if (transposed) dims.input_pixels = model::elements(in) / (in.at(0) * in.at(1));
  dims.groups = call.op->groups;
  const std::int64_t pairs = dims.outputs * dims.inputs / dims.groups;
  dims.window = call.weights[0].numel / pairs;
  const Tensor bias = call.weights.size() > 1 ? call.weights[1] : Tensor();
  return conv(tape, call.inputs[0], call.weights[0], bias, dims);
}

Tensor run_group_norm(Tape& tape, const OperatorCall& call) {
  const model::Shape& in = call.input_shapes[0];
  return group_norm(tape, call.inputs[0], call.weights[0], call.weights[1], in.at(0), in.at(1),
                    call.op->groups);
}

// (1.0 - mask.to(dtype)) * min, of [B,1,1,S]: no part of the autograd graph.
Tensor padding_mask(Tape& tape, const OperatorCall& call) {
  Tensor mask = to(tape, call.inputs[0], real_type(tape));
  mask = add_constant(tape, std::move(mask));
  return mul_constant(tape, std::move(mask));
}

// torch.cat of the expanded tokens and the patches; under autocast both in the widest type.
Tensor class_token(Tape& tape, const OperatorCall& call) {
  Tensor x = call.inputs[0];
  const std::int64_t samples = call.input_shapes[0].front();
  for (const Tensor& token : call.weights) {
    const Tensor first = expand(tape, token, samples);
    x = cat(tape, first, to(tape, std::move(x), token.dtype));
  }
  return x;
}

// get_timestep_embedding: sines and cosines of the steps times the frequencies, in fp32.
Tensor timestep_embedding(Tape& tape, const OperatorCall& call) {
  const std::int64_t numel = model::elements(call.output_shapes[0]);
  tape.begin_operation(OperationKind::other, {&call.inputs[0]});
  Tensor angles = tape.allocate(numel / 2, DType::fp32, "mul");
  Tensor both;
  {
    const Tensor sines = tape.allocate(numel / 2, DType::fp32, "sin");
    const Tensor cosines = tape.allocate(numel / 2, DType::fp32, "cos");
    angles = Tensor();
    both = tape.allocate(numel, DType::fp32, "cat");
  }
  return to(tape, std::move(both), real_type(tape));
}

}  // namespace

std::vector<Tensor> run_image_operator(Tape& tape, const OperatorCall& call) {
  const model::Operator& op = *call.op;
  const Tensor& x = call.inputs[0];
  const auto numel = [&] { return model::elements(call.output_shapes[0]); };
  switch (op.kind) {
    case OperatorKind::padding_mask: return {padding_mask(tape, call)};
    case OperatorKind::view: return {view(x, x.dense && !op.transposed)};
    case OperatorKind::contiguous: return {contiguous(tape, x)};
    case OperatorKind::first_token: return {slice(tape, x, numel())};
    case OperatorKind::class_token: return {class_token(tape, call)};
    case OperatorKind::add_weight: return {add(tape, x, call.weights[0])};
    case OperatorKind::conv: return {run_conv(tape, call)};
    case OperatorKind::batch_norm:
      return {batch_norm(tape, x, call.weights[0], call.weights[1], call.input_shapes[0].at(1))};
    case OperatorKind::group_norm: return {run_group_norm(tape, call)};
    case OperatorKind::max_pool: return {max_pool(tape, x, numel())};
    case OperatorKind::global_average_pool: return {mean(tape, x, x.numel / numel())};
    case OperatorKind::upsample: return {upsample_nearest(tape, x, numel())};
    case OperatorKind::concatenate:
      if (call.inputs.size() != 2) return {cat_all(tape, call.inputs)};
      return {cat(tape, x, call.inputs[1])};
    case OperatorKind::timestep_embedding: return {timestep_embedding(tape, call)};
    default: return run_generic_operator(tape, call);
  }
}

namespace {

Tensor masked_lm_loss(Tape& tape, const OperatorCall& call) {
  const Tensor& labels = call.inputs[1];
  // CrossEntropyLoss()(prediction_scores.view(-1, vocab_size), ...): as they are, unlike the causal
  // models' (modeling_bert.py, modeling_roberta.py, modeling_distilbert.py).
  Tensor logits = call.inputs[0];
  const CrossEntropy kernel = call.variants->cross_entropy;
  if (kernel != CrossEntropy::eager) {
    return fused_cross_entropy(tape, std::move(logits), labels, labels.numel,
                               kernel == CrossEntropy::in_place);
  }
  return cross_entropy(tape, std::move(logits), labels, labels.numel);
}

// logits.split(1, dim=-1), each squeezed and made contiguous; the mean of two cross entropies.
Tensor span_loss(Tape& tape, const OperatorCall& call) {
  const Tensor& logits = call.inputs[0];
  const std::int64_t samples = call.input_shapes[0].front();
  std::vector<Tensor> ends = split(tape, logits, {logits.numel / 2, logits.numel / 2});
  Tensor losses[2];
  for (std::size_t i = 0; i < 2; ++i) {
    const Tensor end = contiguous(tape, std::exchange(ends[i], Tensor()));
    const Tensor positions = tape.allocate(samples, DType::int64, "clamp");
    losses[i] = cross_entropy(tape, end, positions, samples);
  }
  return mul_constant(tape, add(tape, losses[0], losses[1]));
}

}  // namespace

Tensor run_loss(Tape& tape, const OperatorCall& call) {
  switch (call.op->kind) {
    case OperatorKind::masked_lm_loss: return masked_lm_loss(tape, call);
    case OperatorKind::span_loss: return span_loss(tape, call);
    case OperatorKind::outputs_loss: return outputs_loss(tape, call);
    case OperatorKind::squared_loss: {
      // F.mse_loss(prediction.float(), target.float())
      Tensor prediction = to(tape, call.inputs[0], DType::fp32);
      return mse_loss(tape, std::move(prediction), to(tape, call.inputs[1], DType::fp32));
    }
    default: return cross_entropy(tape, call.inputs[0], call.inputs[1], call.inputs[1].numel);
  }
}

}  // namespace steelyard::step
