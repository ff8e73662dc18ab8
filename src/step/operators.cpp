#include "step/operators.h"

#include <utility>

#include "step/alignment_operators.h"
#include "step/attention_operator.h"
#include "step/disentangled_attention.h"
#include "step/fused_adapters.h"
#include "step/fused_operators.h"
#include "step/latent_attention.h"
#include "step/linear_operator.h"
#include "step/loss_operator.h"
#include "step/operators_image.h"
#include "step/operators_speech.h"
#include "step/operators_tables.h"
#include "step/picture_text_operators.h"
#include "step/prediction_operators.h"
#include "step/primitives.h"
#include "step/primitives_fused.h"
#include "step/primitives_generic.h"
#include "step/primitives_image.h"
#include "step/recurrent_attention.h"
#include "step/state_scan.h"
#include "step/token_order.h"

namespace steelyard::step {

namespace {

using model::ActivationKind;
using model::OperatorKind;

// diffusers' RMSNorm.forward (models/normalization.py): x * rsqrt(x.to(float32).pow(2).mean(-1)),
// in fp32; back to the weight's type where that is short, or to the input's without a weight.
Tensor rms_norm_of_input(Tape& tape, const OperatorCall& call) {
  const Tensor& x = call.inputs[0];
  Tensor variance = mean(tape, pow(tape, to(tape, x, DType::fp32)), call.input_shapes[0].back());
  Tensor y = mul(tape, x, rsqrt(tape, add_constant(tape, std::move(variance))));
  if (call.weights.empty()) return to(tape, std::move(y), x.dtype);
  const Tensor& weight = call.weights[0];
  return mul(tape, to(tape, std::move(y), weight.dtype), weight);
}

// Transformer Engine's norms read a tensor of their own, not a piece of another (ops/basic/
// layer_norm.py and rmsnorm.py: input_.contiguous()).
Tensor norm_input(Tape& tape, const OperatorCall& call) {
  Tensor x = call.inputs[0];
  const bool piece = bytes_of(x) < x.storage->bytes;
  if (call.variants->engine_copies == EngineCopies::none || !piece) return x;
  return contiguous(tape, view(std::move(x), false));
}

Tensor rms_norm(Tape& tape, const OperatorCall& call) {
  const Tensor x = norm_input(tape, call);
  const std::int64_t last = call.input_shapes[0].back();
  if (call.op->scales_input) return rms_norm_of_input(tape, call);
  if (call.weights.empty()) {  // Llama4TextL2Norm.forward
    Tensor wide = to(tape, x, DType::fp32);
    Tensor root = rsqrt(tape, add_constant(tape, mean(tape, pow(tape, wide), last)));
    return to(tape, mul(tape, std::move(wide), std::move(root)), x.dtype);
  }
  const Tensor& weight = call.weights[0];
  if (call.op->groups > 1) return grouped_rms_norm(tape, x, weight, call.op->groups);
  if (call.variants->rms_norm == RmsNorm::in_place) return in_place_rms_norm(tape, x, weight, last);
  if (call.variants->rms_norm == RmsNorm::native) return fused_rms_norm(tape, x, weight, last);
  // LlamaRMSNorm.forward
  const DType before = x.dtype;
  Tensor wide = to(tape, x, DType::fp32);
  Tensor variance = mean(tape, pow(tape, wide), last);
  if (call.op->keeps_narrow) {  // T5LayerNorm.forward
    wide = mul(tape, x, rsqrt(tape, add_constant(tape, variance)));
    return mul(tape, weight, to(tape, std::move(wide), weight.dtype));
  }
  wide = mul(tape, wide, rsqrt(tape, add_constant(tape, variance)));
  // Olmo2RMSNorm.forward: (weight * hidden_states).to(input_dtype)
  const bool scales_wide = call.variants->rms_norm == RmsNorm::scaled_wide;
  if (call.op->scales_wide || scales_wide) return to(tape, mul(tape, weight, wide), before);
  if (!call.op->unit_offset) return mul(tape, weight, to(tape, wide, before));
  // GemmaRMSNorm.forward: the product with (1 + weight) is in fp32
  const Tensor gain = add_constant(tape, to(tape, weight, DType::fp32));
  return to(tape, mul(tape, std::move(wide), gain), before);
}

// diffusers' apply_rotary_emb (models/embeddings.py):
//   x_rotated = torch.stack([-x_imag, x_real], dim=-1).flatten(3)
//   (x.float() * cos + x_rotated.float() * sin).to(x.dtype)
Tensor turned_pairs(Tape& tape, const Tensor& x, const Tensor& cosine, const Tensor& sine) {
  Tensor quarter_turn;
  {
    const Tensor other = mul_constant(tape, slice(tape, x, x.numel / 2));
    quarter_turn = cat(tape, other, slice(tape, x, x.numel / 2));
  }
  Tensor along = mul(tape, to(tape, x, DType::fp32), cosine);
  along.dense = x.dense;
  Tensor across = mul(tape, to(tape, std::move(quarter_turn), DType::fp32), sine);
  Tensor sum = add(tape, std::move(along), std::move(across));
  sum.dense = x.dense;
  return to(tape, std::move(sum), x.dtype);
}

// modeling_gpt_oss.py, _apply_rotary_emb: both halves by tables of half a head, then joined.
Tensor turned_halves(Tape& tape, const Tensor& x, const Tensor& cosine, const Tensor& sine) {
  const std::vector<Tensor> halves = split(tape, x, {x.numel / 2, x.numel / 2});
  Tensor first = add(tape, mul(tape, halves[0], cosine), mul(tape, halves[1], sine));
  Tensor second = add(tape, mul(tape, halves[1], cosine), mul(tape, halves[0], sine));
  return cat(tape, std::move(first), std::move(second));
}

// apply_rotary_pos_emb for one of q and k.
Tensor rotated(Tape& tape, const OperatorCall& call, const Tensor& x, const Tensor& cosine,
               const Tensor& sine) {
  const std::int64_t head = call.input_shapes[0].back();
  const std::int64_t turning = call.op->rotary_dims;
  const std::int64_t part = head == turning ? x.numel : x.numel / head * turning;
  if (call.op->turns_pairs) return turned_pairs(tape, x, cosine, sine);
  if (call.variants->rotary == Rotary::in_place) return in_place_rotary(tape, x, cosine, sine);
  if (call.variants->rotary == Rotary::fused) return fused_rotary(tape, x, cosine);
  if (call.variants->rotary == Rotary::complex || call.op->turns_complex) {
    // view_as_complex on an fp32 copy, times the table, back: torchtitan's apply_rotary_emb.
    const Tensor wide = to(tape, x, DType::fp32);
    return to(tape, mul(tape, wide, cosine), x.dtype);
  }
  if (call.op->turns_halves) return turned_halves(tape, x, cosine, sine);
  const Tensor turned = head == turning ? x : slice(tape, x, part);
  Tensor along = mul(tape, turned, cosine);
  Tensor half = slice(tape, turned, part / 2);
  Tensor other = slice(tape, turned, part / 2);
  Tensor quarter_turn = cat(tape, mul_constant(tape, std::move(other)), std::move(half));
  Tensor across = mul(tape, std::move(quarter_turn), sine);
  Tensor sum = add(tape, std::move(along), std::move(across));
  sum.dense = x.dense;
  if (call.op->wide_tables) sum = to(tape, std::move(sum), x.dtype);
  const bool joins = call.op->joins_rest || call.variants->rotary == Rotary::joined;
  if (head == turning && !joins) return sum;
  const Tensor rest = slice(tape, x, x.numel - part);
  return cat(tape, std::move(sum), rest);
}

Tensor gated_activation(Tape& tape, const OperatorCall& call) {
  if (call.activated) return mul(tape, call.inputs[0], call.inputs[1]);
  Tensor gate = call.inputs[0];
  Tensor up = call.op->fused_gate_up ? Tensor() : call.inputs[1];
  if (call.op->fused_gate_up) {
    std::vector<Tensor> halves = split(tape, gate, {gate.numel / 2, gate.numel / 2});
    gate = halves[0];
    up = halves[1];
  }
  if (call.variants->fused_swiglu && call.op->activation == ActivationKind::silu) {
    return fused_swiglu(tape, gate, up);
  }
  return mul(tape, activation(tape, call.op->activation, std::move(gate)), up);
}

std::vector<Tensor> both_rotated(Tape& tape, OperatorCall& call) {
  const Tensor& cosine = call.inputs[2];
  const Tensor& sine = call.inputs[3];
  Tensor query = rotated(tape, call, call.inputs[0], cosine, sine);
  call.inputs[0] = Tensor();  // q is bound again before k is
  return {std::move(query), rotated(tape, call, call.inputs[1], cosine, sine)};
}

// [S,H] beside [1,S,H]: as many elements, but the gradient is summed over the missing dimension.
Tensor broadcast_operand(Tape& tape, const OperatorCall& call) {
  const Tensor& a = call.inputs[0];
  Tensor b = call.inputs[1];
  const bool lacks = call.input_shapes[1].size() < call.input_shapes[0].size();
  if (!lacks || a.numel != b.numel || !tape.tracks({&b})) return b;
  tape.track(b, "add", {Tape::edge_of(call.inputs[1])}, {},
             [](Tape& t, const std::vector<Tensor>& g) {
               Tensor sum = t.allocate(g[0].numel, g[0].dtype, "sum");
               t.pointwise("sum", 2 * bytes_of(sum));
               return std::vector<Tensor>{sum};
             });
  return b;
}

// Both operands may be stretched: [1,n,Q,K] + [B,1,Q,K].
Tensor sum_of(Tape& tape, const OperatorCall& call) {
  const std::int64_t numel = model::elements(call.output_shapes[0]);
  const Tensor& a = call.inputs[0];
  if (numel == a.numel || numel == call.inputs[1].numel) {
    return add(tape, a, broadcast_operand(tape, call));
  }
  return add(tape, expand(tape, a, numel / a.numel), call.inputs[1]);
}

DType type_of_weights(const Tape& tape) {
  return tape.arithmetic().autocast ? tape.arithmetic().ambient : tape.arithmetic().compute;
}

// x *= torch.empty_like(x).uniform_(1 - eps, 1 + eps): x itself is not needed again.
Tensor jittered(Tape& tape, Tensor x) {
  const Tensor factors = tape.allocate(x.numel, x.dtype, "uniform_");
  tape.pointwise("uniform_", bytes_of(factors));
  return mul(tape, std::move(x), factors);
}

std::vector<Tensor> rotary_tables(Tape& tape, const OperatorCall& call) {
  std::vector<Tensor> tables;
  DType dtype = call.op->wide_tables ? DType::fp32 : type_of_weights(tape);
  if (!call.inputs.empty()) dtype = call.inputs.front().dtype;
  for (const model::Shape& shape : call.output_shapes) {
    tables.push_back(tape.allocate(model::elements(shape), dtype, "rotary_table"));
  }
  return tables;
}

std::vector<Tensor> split_parts(Tape& tape, const OperatorCall& call) {
  std::vector<std::int64_t> numels;
  for (const model::Shape& shape : call.output_shapes) numels.push_back(model::elements(shape));
  std::vector<Tensor> parts = split(tape, call.inputs[0], numels);
  for (Tensor& part : parts) part.dense = part.dense || call.op->own_parts;
  for (std::size_t i = 1; call.op->gathers_parts && i < parts.size(); ++i) {
    parts[i].dense = false;
    parts[i] = contiguous(tape, std::move(parts[i]));
  }
  return parts;
}

Tensor position_embedding(Tape& tape, const OperatorCall& call) {
  const model::Shape& shape = call.output_shapes[0];
  const std::int64_t positions = model::elements(shape) / shape.back();
  const Tensor ids = tape.allocate(positions, DType::int64, "arange");
  return embedding(tape, ids, call.weights[0], shape.back());
}

Tensor weight_of(const OperatorCall& call, std::size_t index) {
  return index < call.weights.size() ? call.weights[index] : Tensor();
}

// CohereLayerNorm.forward: the difference from the mean is made twice.
Tensor written_layer_norm(Tape& tape, const OperatorCall& call) {
  const Tensor& x = call.inputs[0];
  const std::int64_t last = call.input_shapes[0].back();
  Tensor wide = to(tape, x, DType::fp32);
  const Tensor centre = mean(tape, wide, last);
  Tensor variance = mean(tape, pow(tape, add(tape, wide, centre)), last);
  wide = mul(tape, add(tape, std::move(wide), centre),
             rsqrt(tape, add_constant(tape, std::move(variance))));
  wide = mul(tape, to(tape, call.weights[0], DType::fp32), std::move(wide));
  return to(tape, std::move(wide), x.dtype);
}

Tensor run_layer_norm(Tape& tape, const OperatorCall& call) {
  if (call.op->written_out) return written_layer_norm(tape, call);
  const Tensor weight = !call.weights.empty() ? call.weights[0] : Tensor();
  const Tensor bias = call.weights.size() > 1 ? call.weights[1] : Tensor();
  return layer_norm(tape, norm_input(tape, call), weight, bias, call.input_shapes[0].back());
}

// act(x, inplace=True). relu_ has a derivative of its result, the others of what they overwrite.
Tensor in_place(Tape& tape, ActivationKind kind, Tensor x) {
  if (kind == ActivationKind::relu) return relu_in_place(tape, std::move(x));
  if (tape.options().compiled) return activation(tape, kind, std::move(x));
  return activation_in_place(tape, "activation_", std::move(x));
}

// Configurations name transformers' activations; other codes have one kernel for these.
bool is_written_out_gelu(ActivationKind kind) {
  return kind == ActivationKind::gelu_new || kind == ActivationKind::gelu_fast;
}

}  // namespace

Tensor activation(Tape& tape, ActivationKind kind, Tensor x) {
  switch (kind) {
    case ActivationKind::gelu:
    case ActivationKind::gelu_tanh: return gelu(tape, std::move(x));
    case ActivationKind::silu: return silu(tape, std::move(x));
    case ActivationKind::relu: return relu(tape, std::move(x));
    case ActivationKind::squared_relu: return pow(tape, relu(tape, std::move(x)));
    case ActivationKind::tanh: return tanh(tape, std::move(x));
    case ActivationKind::sigmoid: return sigmoid(tape, std::move(x));
    case ActivationKind::relu6: return saving_input(tape, "hardtanh", std::move(x));
    case ActivationKind::hardswish: return saving_input(tape, "hardswish", std::move(x));
    case ActivationKind::hardsigmoid: return saving_input(tape, "hardsigmoid", std::move(x));
    case ActivationKind::quick_gelu: return mul(tape, x, sigmoid(tape, mul_constant(tape, x)));
    case ActivationKind::xielu:       // has weights: run_activation
    case ActivationKind::bloom_gelu:  // its autograd function saves x alone
      return gelu(tape, std::move(x));
    case ActivationKind::gelu_new: {
      // 0.5 * x * (1.0 + tanh(sqrt(2 / pi) * (x + 0.044715 * pow(x, 3.0))))
      const Tensor half = mul_constant(tape, x);
      Tensor inner = add(tape, x, mul_constant(tape, pow(tape, x)));
      Tensor curve = tanh(tape, mul_constant(tape, std::move(inner)));
      return mul(tape, half, add_constant(tape, std::move(curve)));
    }
    case ActivationKind::gelu_fast: {
      // 0.5 * x * (1.0 + tanh(x * 0.79788456 * (1.0 + 0.044715 * x * x)))
      const Tensor half = mul_constant(tape, x);
      const Tensor scaled_x = mul_constant(tape, x);
      Tensor square = mul(tape, mul_constant(tape, x), x);
      Tensor inner = mul(tape, scaled_x, add_constant(tape, std::move(square)));
      return mul(tape, half, add_constant(tape, tanh(tape, std::move(inner))));
    }
  }
  return gelu(tape, x);
}

bool is_scripted(const Variants& variants, const model::Operator& op) {
  return variants.gelu == GeluCode::scripted_erf && op.kind == OperatorKind::activation &&
         op.activation == ActivationKind::gelu;
}

Tensor early_activation(Tape& tape, const model::Operator& op, Tensor gate) {
  return activation(tape, op.activation, std::move(gate));
}

namespace {

Tensor run_activation(Tape& tape, const OperatorCall& call) {
  const model::Operator& op = *call.op;
  if (op.in_place) return in_place(tape, op.activation, call.inputs[0]);
  if (call.variants->gelu == GeluCode::fused && is_written_out_gelu(op.activation)) {
    return gelu(tape, call.inputs[0]);
  }
  if (is_scripted(*call.variants, op)) return scripted_gelu(tape, call.inputs[0], call.captured);
  if (op.activation == ActivationKind::xielu) {
    return xielu(tape, call.inputs[0], call.weights[0], call.weights[1]);
  }
  return activation(tape, op.activation, call.inputs[0]);
}

Tensor run_bias_activation(Tape& tape, const OperatorCall& call) {
  return bias_activation(tape, call.inputs[0], weight_of(call, 0), call.input_shapes[0].back(),
                         call.op->fused_gate_up);
}

Tensor run_bias_dropout_add(Tape& tape, const OperatorCall& call) {
  return bias_dropout_add(tape, call.inputs[0], call.inputs[1], weight_of(call, 0),
                          call.input_shapes[0].back(),
                          call.variants->dropout ? call.op->probability : 0.0);
}

// peft/tuners/lora/layer.py, Embedding.forward: rows of lora_embedding_A.T, times
// lora_embedding_B.T and the scale.
Tensor run_embedding(Tape& tape, const OperatorCall& call) {
  const std::int64_t hidden = call.output_shapes[0].back();
  Tensor result = embedding(tape, call.inputs[0], call.weights[0], hidden);
  const std::int64_t rank = call.op->adapter_rank;
  if (rank == 0) return result;
  const Tensor low = embedding(tape, call.inputs[0], call.weights[2], rank);
  Tensor high = linear(tape, low, call.weights[3], Tensor(), rank, hidden);
  return add(tape, std::move(result), mul_constant(tape, std::move(high)));
}

Tensor run_softcap(Tape& tape, const OperatorCall& call) {
  return mul_constant(tape, tanh(tape, mul_constant(tape, call.inputs[0])));
}

Tensor run_addition(Tape& tape, OperatorCall& call) {
  if (!call.op->in_place) return sum_of(tape, call);
  return add_in_place(tape, call.inputs[0], call.inputs[1]);
}

}  // namespace

std::vector<Tensor> run_operator(Tape& tape, OperatorCall call) {
  const model::Operator& op = *call.op;
  switch (op.kind) {
    case OperatorKind::embedding: return {run_embedding(tape, call)};
    case OperatorKind::position_embedding: return {position_embedding(tape, call)};
    case OperatorKind::linear: return {linear_layer(tape, call)};
    case OperatorKind::layer_norm: return {run_layer_norm(tape, call)};
    case OperatorKind::rms_norm: return {rms_norm(tape, call)};
    case OperatorKind::rotary_table: return rotary_tables(tape, call);
    case OperatorKind::rotary: return both_rotated(tape, call);
    case OperatorKind::split: return split_parts(tape, call);
    case OperatorKind::heads: return {split_heads(tape, call.inputs[0], call.output_shapes[0][1])};
    case OperatorKind::latent_heads: return latent_heads(tape, call);
    case OperatorKind::recurrent_attention: return {recurrent_attention(tape, call)};
    case OperatorKind::attention:
      return {call.recomputed ? recomputed_attention(tape, call) : attention(tape, call)};
    case OperatorKind::activation: return {run_activation(tape, call)};
    case OperatorKind::gated_activation: return {gated_activation(tape, call)};
    case OperatorKind::bias_activation: return {run_bias_activation(tape, call)};
    case OperatorKind::bias_dropout_add: return {run_bias_dropout_add(tape, call)};
    case OperatorKind::add: return {run_addition(tape, call)};
    case OperatorKind::widen: return {to(tape, call.inputs[0], DType::fp32)};
    case OperatorKind::narrow: return {to(tape, call.inputs[0], type_of_weights(tape))};
    case OperatorKind::scale: return {mul_constant(tape, call.inputs[0])};
    case OperatorKind::dropout:
      return {dropout(tape, call.inputs[0], call.variants->dropout ? op.probability : 0.0)};
    case OperatorKind::softcap: return {run_softcap(tape, call)};
    case OperatorKind::clamp: return {saving_input(tape, "clamp", call.inputs[0])};
    case OperatorKind::jitter: return {jittered(tape, call.inputs[0])};
    case OperatorKind::disentangled_attention: return {disentangled_attention(tape, call)};
    case OperatorKind::causal_lm_loss: return causal_lm_loss(tape, call);
    case OperatorKind::copy_to_ranks: return {copy_to_ranks(tape, call.inputs[0])};
    case OperatorKind::sum_over_ranks: return {sum_over_ranks(tape, call.inputs[0])};
    case OperatorKind::gather_sequence: return {gathered_tokens(tape, call)};
    case OperatorKind::scatter_sequence: return {scattered_tokens(tape, call)};
    case OperatorKind::classification_loss:
    case OperatorKind::masked_lm_loss:
    case OperatorKind::span_loss:
    case OperatorKind::squared_loss:
    case OperatorKind::outputs_loss:
    case OperatorKind::multibox_loss: return {run_loss(tape, call), call.inputs[0]};
    case OperatorKind::cached:
    case OperatorKind::log_probabilities:
    case OperatorKind::alignment_loss: return run_alignment_operator(tape, call);
    case OperatorKind::normed_conv:
    case OperatorKind::mask_tokens:
    case OperatorKind::ctc_loss: return run_speech_operator(tape, call);
    case OperatorKind::router:
    case OperatorKind::expert_assignment:
    case OperatorKind::experts: return run_mixture_operator(tape, call);
    case OperatorKind::state_scan: return {state_scan(tape, call)};
    case OperatorKind::delta_rule: return {delta_rule(tape, call)};
    case OperatorKind::selective_scan:
      return {op.scan.apart ? normed_selective_scan(tape, call) : selective_scan(tape, call)};
    case OperatorKind::join:
    case OperatorKind::gather_features:
    case OperatorKind::attach_loss: return {run_prediction_operator(tape, call)};
    case OperatorKind::adapted_linears:
    case OperatorKind::adapted_mlp: return run_fused_adapters(tape, call);
    case OperatorKind::embedding_tables:
    case OperatorKind::exchange_tables:
    case OperatorKind::join_features:
    case OperatorKind::pairwise_products:
    case OperatorKind::binary_loss: return run_table_operator(tape, call);
    case OperatorKind::merge_pictures:
    case OperatorKind::rotary_sections:
    case OperatorKind::unit_length:
    case OperatorKind::probe_attention:
    case OperatorKind::contrastive_loss: return run_picture_text_operator(tape, call);
    default: return run_image_operator(tape, call);
  }
}

}  // namespace steelyard::step
