// Sources: transformers 4.49 (modeling_llava.py, modeling_qwen2_vl.py, modeling_clip.py,
// modeling_siglip.py), PyTorch 2.6 (torch/nn/functional.py, multi_head_attention_forward;
// tools/autograd/derivatives.yaml; the kernels named at each function).
#include "step/picture_text_operators.h"

#include <utility>

#include "step/primitives.h"
#include "step/primitives_generic.h"
#include "step/primitives_image.h"

namespace steelyard::step {

namespace {

using model::OperatorKind;
using Gradients = std::vector<Tensor>;

// text.masked_scatter(mask, features): the mask (input_ids == image_token).expand_as(text) is
// saved, one byte a token. The kernel reads it written out and counts its places by a prefix sum in
// int64 (native/cuda/IndexKernel.cpp, masked_scatter__cuda). The gradient of the text is a copy
// with zeros (masked_fill), that of the features is gathered by the places of the mask, three int64
// for each (masked_scatter_backward: masked_select, native/cuda/Nonzero.cu).
Tensor merge_pictures(Tape& tape, const OperatorCall& call) {
  const Tensor text = call.inputs[0];
  const Tensor features = to(tape, call.inputs[1], text.dtype);
  const std::int64_t tokens = call.inputs[2].numel;
  tape.begin_operation(OperationKind::other, {&text, &features});
  const Tensor mask = tape.allocate(tokens, DType::boolean, "eq");
  Tensor merged = tape.allocate(text.numel, text.dtype, "masked_scatter");
  {
    const Tensor written = tape.allocate(text.numel, DType::boolean, "masked_scatter");
    const Tensor places = tape.allocate(text.numel, DType::int64, "masked_scatter");
    tape.pointwise("masked_scatter", 2 * bytes_of(written) + 2 * bytes_of(places) +
                                         3 * bytes_of(merged) + bytes_of(features));
  }
  if (!tape.tracks({&text, &features})) return merged;
  const bool wants_text = text.requires_grad;
  const bool wants_features = features.requires_grad;
  const std::int64_t numel = features.numel;
  tape.track(merged, "masked_scatter", {Tape::edge_of(text), Tape::edge_of(features)},
             {mask.storage}, [=](Tape& t, const Gradients& gradients) {
               const Tensor& dy = gradients[0];
               Gradients result(2);
               if (wants_text) {
                 result[0] = t.allocate(dy.numel, dy.dtype, "masked_fill");
                 t.pointwise("masked_fill", 2 * bytes_of(result[0]));
               }
               if (wants_features) {
                 const Tensor places = t.allocate(3 * numel, DType::int64, "nonzero");
                 result[1] = t.allocate(numel, dy.dtype, "masked_select");
                 t.pointwise("masked_select", bytes_of(places) + 2 * bytes_of(result[1]));
               }
               return result;
             });
  return merged;
}

// cos.split(sections, -1), joined of the three positions' tables: no part of the autograd graph.
std::vector<Tensor> rotary_sections(Tape& tape, const OperatorCall& call) {
  std::vector<Tensor> tables;
  for (std::size_t i = 0; i < call.output_shapes.size(); ++i) {
    const Tensor& whole = call.inputs[i];
    tape.begin_operation(OperationKind::pointwise, {&whole});
    tables.push_back(tape.allocate(model::elements(call.output_shapes[i]), whole.dtype, "cat"));
    tape.pointwise("cat", 2 * bytes_of(tables.back()));
  }
  return tables;
}

// x / x.norm(dim=-1, keepdim=True): the norm saves x and itself, the quotient both of its operands.
Tensor unit_length(Tape& tape, const OperatorCall& call) {
  const Tensor& x = call.inputs[0];
  const std::int64_t rows = x.numel / call.input_shapes[0].back();
  Tensor wide = to_fp32_if_autocast(tape, x);
  const DType type = wide.dtype;
  Tensor norm = unary(tape, std::move(wide), model::Saves::both, {.numel = rows, .dtype = type});
  const DType wider = facts::bytes_of(norm.dtype) > facts::bytes_of(x.dtype) ? norm.dtype : x.dtype;
  return binary(tape, x, std::move(norm), model::ArithmeticKind::divide,
                {.numel = x.numel, .dtype = wider});
}

// multi_head_attention_forward with one query of its own and keys that are values: keys and values
// of one product, parted by a copy; the probabilities are also averaged over the heads.
Tensor probe_attention(Tape& tape, const OperatorCall& call) {
  const Tensor& x = call.inputs[0];
  const model::Shape& shape = call.input_shapes[0];
  const std::int64_t samples = shape.at(0);
  const std::int64_t keys = shape.at(1);
  const std::int64_t hidden = shape.at(2);
  const std::int64_t heads = call.op->attention.heads;
  const std::int64_t batch = samples * heads;
  const Tensor& matrix = call.weights[1];
  const Tensor& bias = call.weights[2];
  const Tensor query = contiguous(tape, expand(tape, call.weights[0], samples));
  const std::vector<Tensor> matrices = split(tape, matrix, {hidden * hidden, 2 * hidden * hidden});
  const std::vector<Tensor> biases = split(tape, bias, {hidden, 2 * hidden});
  Tensor q = linear(tape, query, view(matrices[0], true), biases[0], hidden, hidden);
  Tensor both = linear(tape, x, view(matrices[1], true), biases[1], hidden, 2 * hidden);
  both = contiguous(tape, view(std::move(both), false));
  std::vector<Tensor> parts = split(tape, both, {both.numel / 2, both.numel / 2});
  both = Tensor();
  q = mul_constant(tape, std::move(q));
  Tensor scores = matmul(tape, std::move(q), view(parts[0], true), batch, 1, keys, hidden / heads,
                         {.second_transposed = true});
  const DType soft = tape.arithmetic().autocast ? DType::fp32 : scores.dtype;
  Tensor weights = softmax(tape, std::move(scores), soft, keys);
  Tensor mixed = matmul(tape, std::move(weights), view(parts[1], true), batch, 1, hidden / heads,
                        keys, {.result_transposed = true});
  mixed = contiguous(tape, view(std::move(mixed), false));
  return linear(tape, mixed, call.weights[3], call.weights[4], hidden, hidden);
}

// CLIP: the mean of two cross entropies, of the logits and of their transpose. SigLIP: the mean of
// the logarithm of the sigmoid of each pair, with -1 or 1 in front.
Tensor contrastive_loss(Tape& tape, const OperatorCall& call) {
  const Tensor& text = call.inputs[0];
  const Tensor& pictures = call.inputs[1];
  const std::int64_t rows = call.input_shapes[0].front();
  const std::int64_t width = call.input_shapes[0].back();
  const auto pairs = [&](DType dtype) {
    return Outcome{.numel = checked_multiply(rows, rows), .dtype = dtype};
  };
  Tensor products = matmul(tape, text, pictures, 1, rows, rows, width, {.second_transposed = true});
  Tensor scale = unary(tape, call.weights[0], model::Saves::output,
                       {.numel = 1, .dtype = call.weights[0].dtype});
  const DType type = products.dtype;
  Tensor logits = binary(tape, std::move(products), std::move(scale),
                         model::ArithmeticKind::multiply, pairs(type));
  if (call.weights.size() == 1) {
    const Tensor labels = tape.allocate(rows, DType::int64, "arange");
    Tensor first = cross_entropy(tape, logits, labels, rows);
    const Tensor again = tape.allocate(rows, DType::int64, "arange");
    Tensor second = cross_entropy(tape, std::move(logits), again, rows);
    return mul_constant(tape, add(tape, std::move(first), std::move(second)));
  }
  logits =
      binary(tape, std::move(logits), call.weights[1], model::ArithmeticKind::add, pairs(type));
  const Tensor signs = tape.allocate(checked_multiply(rows, rows), DType::fp32, "eye");
  Tensor signed_logits =
      binary(tape, std::move(logits), signs, model::ArithmeticKind::multiply, pairs(DType::fp32));
  Tensor likelihood =
      unary(tape, std::move(signed_logits), model::Saves::input, pairs(DType::fp32));
  return mean(tape, mul_constant(tape, sum_last(tape, std::move(likelihood), rows)), rows);
}

}  // namespace

std::vector<Tensor> run_picture_text_operator(Tape& tape, const OperatorCall& call) {
  switch (call.op->kind) {
    case OperatorKind::merge_pictures: return {merge_pictures(tape, call)};
    case OperatorKind::rotary_sections: return rotary_sections(tape, call);
    case OperatorKind::unit_length: return {unit_length(tape, call)};
    case OperatorKind::probe_attention: return {probe_attention(tape, call)};
    case OperatorKind::contrastive_loss: return {contrastive_loss(tape, call), call.inputs[0]};
    default: return {};
  }
}

}  // namespace steelyard::step
