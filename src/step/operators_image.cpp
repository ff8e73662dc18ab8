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

// peft/tuners/lora/layer.py, _ConvNd.forward: lora_B(lora_A(dropout(x))) * scaling.
Tensor with_conv_adapter(Tape& tape, const OperatorCall& call, const ConvDims& base,
                         Tensor result) {
  const Tensor& down = call.weights[2];
  const DType before = result.dtype;
  ConvDims first = base;
  first.outputs = call.op->adapter_rank;
  ConvDims second = base;
  second.inputs = call.op->adapter_rank;
  second.window = 1;
  Tensor x = to(tape, call.inputs[0], down.dtype);
  x = dropout(tape, std::move(x), call.op->adapter_dropout);
  const Tensor low = conv(tape, x, down, Tensor(), first);
  Tensor high = mul_constant(tape, conv(tape, low, call.weights[3], Tensor(), second));
  return to(tape, add(tape, std::move(result), std::move(high)), before);
}

Tensor run_conv(Tape& tape, const OperatorCall& call) {
  const model::Shape& in = call.input_shapes[0];
  const model::Shape& out = call.output_shapes[0];
  ConvDims dims;
  dims.samples = out.at(0);
  dims.inputs = in.at(1);
  dims.outputs = out.at(1);
  // One, two or three dimensions. A transposed convolution multiplies at its input's pixels.
  dims.pixels = model::elements(out) / (out.at(0) * out.at(1));
  dims.groups = call.op->groups;
  dims.computed = call.inputs.size() > 1;
  const Tensor& weight = dims.computed ? call.inputs[1] : call.weights[0];
  const std::size_t behind = dims.computed ? 0 : 1;
  dims.window = weight.numel / (dims.outputs * (dims.inputs / dims.groups));
  if (call.op->transposed) {
    dims.window = weight.numel / (dims.inputs * (dims.outputs / dims.groups));
    dims.spread = model::elements(in) / (in.at(0) * in.at(1));
  }
  const Tensor bias = call.weights.size() > behind ? call.weights[behind] : Tensor();
  Tensor result = conv(tape, call.inputs[0], weight, bias, dims);
  if (call.op->adapter_rank == 0) return result;
  return with_conv_adapter(tape, call, dims, std::move(result));
}

// Scale and bias are weights, operands that the graph computes, or not there.
Tensor run_batch_norm(Tape& tape, const OperatorCall& call) {
  const auto affine = [&](std::size_t i) {
    if (call.weights.size() > i) return call.weights[i];
    return call.inputs.size() > i + 1 ? call.inputs[i + 1] : Tensor();
  };
  return batch_norm(tape, call.inputs[0], affine(0), affine(1), call.input_shapes[0].at(1));
}

Tensor run_group_norm(Tape& tape, const OperatorCall& call) {
  const model::Shape& in = call.input_shapes[0];
  const Tensor weight = call.weights.empty() ? Tensor() : call.weights[0];
  const Tensor bias = call.weights.size() > 1 ? call.weights[1] : Tensor();
  return group_norm(tape, call.inputs[0], weight, bias, in.at(0), in.at(1), call.op->groups);
}

// (1.0 - mask.to(dtype)) * min, of [B,1,1,S] or with a row per query: no part of the autograd
// graph.
Tensor padding_mask(Tape& tape, const OperatorCall& call) {
  Tensor expanded = call.inputs[0];
  expanded.numel = model::elements(call.output_shapes[0]);
  Tensor mask = to(tape, std::move(expanded), real_type(tape));
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

// x * gamma.reshape(1, -1, 1, 1): the weight is read as a view.
Tensor multiply_weight(Tape& tape, const OperatorCall& call) {
  return mul(tape, call.inputs[0], call.weights[0]);
}

// No part of the autograd graph: fp32 tensors of all pairs, written and read once each.
Tensor match_boxes(Tape& tape, const OperatorCall& call) {
  const Tensor& x = call.inputs[0];
  const double bytes = static_cast<double>(call.op->groups) * call.op->constant;
  tape.begin_operation(OperationKind::other, {&x});
  const Tensor pairs = tape.allocate(static_cast<std::int64_t>(bytes) / 4, DType::fp32, "box_iou");
  const std::int64_t pictures = call.input_shapes[0].front();  // one after the other
  tape.pointwise("box_iou", Bytes(2 * bytes_of(pairs).value() * pictures));
  return view(x, x.dense);
}

// table[index.view(-1)].view(S, S, n).permute(2, 0, 1).contiguous(); the index is a buffer.
Tensor window_bias(Tape& tape, const OperatorCall& call) {
  const std::int64_t numel = model::elements(call.output_shapes[0]);
  Tensor bias = index(tape, call.weights[0], {}, numel);
  return contiguous(tape, view(std::move(bias), false));
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

// T5Attention.compute_bias: a table's rows by the bucket of each distance, heads first; without a
// table torch.zeros of the scores' type.
Tensor relative_bias(Tape& tape, const OperatorCall& call) {
  const model::Shape& shape = call.output_shapes[0];
  const std::int64_t pairs = checked_multiply(shape.at(2), shape.at(3));
  if (call.weights.empty()) {
    tape.begin_operation(OperationKind::other);
    Tensor zeros =
        tape.allocate(checked_multiply(pairs, shape.at(1)), tape.arithmetic().compute, "zeros");
    tape.pointwise("zeros", bytes_of(zeros));
    return zeros;
  }
  const Tensor buckets = tape.allocate(pairs, DType::int64, "relative_position_bucket");
  return view(embedding(tape, buckets, call.weights[0], shape.at(1)), false);
}

// norm(x) * (1 + scale[:, None]) + shift[:, None], as diffusers' normalization.py writes it.
Tensor modulate(Tape& tape, const OperatorCall& call) {
  Tensor scaled = mul(tape, call.inputs[0], add_constant(tape, call.inputs[1]));
  return add(tape, std::move(scaled), call.inputs[2]);
}

// Residual sums of several streams that are one tensor here.
Tensor add_parts(Tape& tape, const OperatorCall& call) {
  const Tensor& x = call.inputs[0];
  std::vector<const Tensor*> reads;
  std::vector<Edge> edges;
  std::vector<std::int64_t> numels;
  DType widest = x.dtype;
  bool tracks = false;
  for (const Tensor& input : call.inputs) {
    reads.push_back(&input);
    edges.push_back(Tape::validated_edge_of(input));
    numels.push_back(input.numel);
    tracks = tracks || tape.tracks({&input});
    if (facts::bytes_of(input.dtype) > facts::bytes_of(widest)) widest = input.dtype;
  }
  tape.begin_operation(OperationKind::pointwise, {&x});
  Tensor y = tape.allocate(x.numel, widest, "add");
  tape.pointwise("add", 2 * bytes_of(x) + bytes_of(y));
  if (!tracks) return y;
  std::vector<bool> wants;
  for (const Tensor* input : reads) wants.push_back(input->requires_grad);
  tape.track(y, "add", std::move(edges), {},
             [numels, wants](Tape&, const std::vector<Tensor>& gradients) {
               std::vector<Tensor> result(numels.size());
               for (std::size_t part = 0; part < numels.size(); ++part) {
                 if (!wants[part]) continue;
                 result[part] = gradients[0];
                 result[part].numel = numels[part];
               }
               return result;
             });
  return y;
}

}  // namespace

std::vector<Tensor> run_image_operator(Tape& tape, const OperatorCall& call) {
  const model::Operator& op = *call.op;
  const Tensor x = call.inputs.empty() ? Tensor() : call.inputs[0];
  const auto numel = [&] { return model::elements(call.output_shapes[0]); };
  switch (op.kind) {
    case OperatorKind::padding_mask: return {padding_mask(tape, call)};
    case OperatorKind::view: return {view(x, x.dense && !op.transposed)};
    case OperatorKind::contiguous: return {contiguous(tape, x)};
    case OperatorKind::first_token: return {slice(tape, x, numel())};
    case OperatorKind::class_token: return {class_token(tape, call)};
    case OperatorKind::add_weight: return {add(tape, x, call.weights[0])};
    case OperatorKind::conv: return {run_conv(tape, call)};
    case OperatorKind::batch_norm: return {run_batch_norm(tape, call)};
    case OperatorKind::group_norm: return {run_group_norm(tape, call)};
    case OperatorKind::max_pool: return {max_pool(tape, x, numel())};
    case OperatorKind::global_average_pool: return {mean(tape, x, x.numel / numel())};
    case OperatorKind::upsample: return {upsample_nearest(tape, x, numel())};
    case OperatorKind::relative_bias: return {relative_bias(tape, call)};
    case OperatorKind::add_buffer: return {add_constant(tape, x)};
    case OperatorKind::concatenate: return {cat(tape, call.inputs)};
    case OperatorKind::average_pool: return {average_pool(tape, x, numel())};
    case OperatorKind::multiply: {
      Tensor y = mul(tape, x, op.keeps_narrow ? to(tape, call.inputs[1], x.dtype) : call.inputs[1]);
      return {call.op->wide_tables ? to(tape, std::move(y), x.dtype) : y};
    }
    case OperatorKind::multiply_weight: return {multiply_weight(tape, call)};
    case OperatorKind::drop_path: return {drop_path(tape, x, call.input_shapes[0].front())};
    case OperatorKind::roll: return {roll(tape, x)};
    case OperatorKind::pad: return {pad(tape, x, numel())};
    case OperatorKind::match_boxes: return {match_boxes(tape, call)};
    case OperatorKind::window_bias: return {window_bias(tape, call)};
    case OperatorKind::timestep_embedding: return {timestep_embedding(tape, call)};
    case OperatorKind::modulate: return {modulate(tape, call)};
    case OperatorKind::add_parts: return {add_parts(tape, call)};
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
  // transformers' one loss for all (loss_utils.py, ForMaskedLMLoss): logits.float()
  if (call.op->wide) logits = to(tape, std::move(logits), DType::fp32);
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

namespace {

// Smooth L1 of the offsets, summed over the four of a box, and cross entropy of the logits with
// hard negative mining, the mean over the pictures (SSD: Loss.forward in NVIDIA's
// DeepLearningExamples, PyTorch/Detection/SSD/ssd/model.py).
Tensor multibox_loss(Tape& tape, const OperatorCall& call) {
  const std::int64_t boxes = call.inputs[3].numel;  // of all pictures
  const Tensor mask = tape.allocate(boxes, DType::boolean, "gt");
  const Tensor target = tape.allocate(call.inputs[2].numel, DType::fp32, "cat");
  Tensor places =
      sum_last(tape, smooth_l1_loss(tape, to(tape, call.inputs[0], DType::fp32), target),
               call.inputs[0].numel / boxes);
  const std::int64_t samples = call.input_shapes[0].front();
  places = mul(tape, to(tape, mask, DType::fp32), std::move(places));
  places = sum_last(tape, std::move(places), boxes / samples);
  Tensor classes =
      cross_entropy_of_rows(tape, to(tape, call.inputs[1], DType::fp32), call.inputs[3]);
  Tensor chosen;
  {  // con.clone(), sorted twice: values and places
    const Tensor negatives = tape.allocate(boxes, DType::fp32, "clone");
    const Tensor values = tape.allocate(boxes, DType::fp32, "sort");
    const Tensor order = tape.allocate(boxes, DType::int64, "sort");
    const Tensor rank = tape.allocate(boxes, DType::int64, "sort");
    tape.pointwise("sort", 4 * (bytes_of(values) + bytes_of(order)));
    chosen = tape.allocate(boxes, DType::fp32, "to");
  }
  classes = sum_last(tape, mul(tape, std::move(classes), chosen), boxes / samples);
  Tensor sum = add(tape, std::move(places), std::move(classes));
  return mean(tape, mul_constant(tape, std::move(sum)), samples);
}

}  // namespace

Tensor run_loss(Tape& tape, const OperatorCall& call) {
  switch (call.op->kind) {
    case OperatorKind::masked_lm_loss: return masked_lm_loss(tape, call);
    case OperatorKind::span_loss: return span_loss(tape, call);
    case OperatorKind::multibox_loss: return multibox_loss(tape, call);
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
