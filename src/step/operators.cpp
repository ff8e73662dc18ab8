#include "step/operators.h"

#include <utility>

#include "step/attention_operator.h"
#include "step/fused_adapters.h"
#include "step/fused_operators.h"
#include "step/latent_attention.h"
#include "step/linear_operator.h"
#include "step/loss_operator.h"
#include "step/operators_image.h"
#include "step/primitives.h"
#include "step/primitives_fused.h"
#include "step/primitives_image.h"
#include "step/token_order.h"

namespace steelyard::step {

namespace {

using model::ActivationKind;
using model::OperatorKind;

Tensor rms_norm(Tape& tape, const OperatorCall& call) {
  const Tensor& x = call.inputs[0];
  const Tensor& weight = call.weights[0];
  const std::int64_t last = call.input_shapes[0].back();
  if (call.variants->rms_norm == RmsNorm::in_place) return in_place_rms_norm(tape, x, weight, last);
  if (call.variants->rms_norm == RmsNorm::native) return fused_rms_norm(tape, x, weight, last);
  // LlamaRMSNorm.forward
  const DType before = x.dtype;
  Tensor wide = to(tape, x, DType::fp32);
  Tensor variance = mean(tape, pow(tape, wide), last);
  wide = mul(tape, wide, rsqrt(tape, add_constant(tape, variance)));
  // Olmo2RMSNorm.forward: (weight * hidden_states).to(input_dtype)
  if (call.op->scales_wide) return to(tape, mul(tape, weight, wide), before);
  if (!call.op->unit_offset) return mul(tape, weight, to(tape, wide, before));
  // GemmaRMSNorm.forward: the product with (1 + weight) is in fp32
  const Tensor gain = add_constant(tape, to(tape, weight, DType::fp32));
  return to(tape, mul(tape, std::move(wide), gain), before);
}

// apply_rotary_pos_emb for one of q and k.
Tensor rotated(Tape& tape, const OperatorCall& call, const Tensor& x, const Tensor& cosine,
               const Tensor& sine) {
  const std::int64_t head = call.input_shapes[0].back();
  const std::int64_t turning = call.op->rotary_dims;
  const std::int64_t part = head == turning ? x.numel : x.numel / head * turning;
  if (call.variants->rotary == Rotary::in_place) return in_place_rotary(tape, x, cosine, sine);
  if (call.variants->rotary == Rotary::fused) return fused_rotary(tape, x, cosine);
  if (call.variants->rotary == Rotary::complex) {
    // view_as_complex on an fp32 copy, times the table, back: torchtitan's apply_rotary_emb.
    const Tensor wide = to(tape, x, DType::fp32);
    return to(tape, mul(tape, wide, cosine), x.dtype);
  }
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

std::vector<Tensor> rotary_tables(Tape& tape, const OperatorCall& call) {
  std::vector<Tensor> tables;
  const DType own =
      tape.arithmetic().autocast ? tape.arithmetic().ambient : tape.arithmetic().compute;
  const DType dtype = call.op->wide_tables ? DType::fp32 : own;
  for (const model::Shape& shape : call.output_shapes) {
    tables.push_back(tape.allocate(model::elements(shape), dtype, "rotary_table"));
  }
  return tables;
}

std::vector<Tensor> split_parts(Tape& tape, const OperatorCall& call) {
  std::vector<std::int64_t> numels;
  for (const model::Shape& shape : call.output_shapes) numels.push_back(model::elements(shape));
  std::vector<Tensor> parts = split(tape, call.inputs[0], numels);
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

Tensor run_layer_norm(Tape& tape, const OperatorCall& call) {
  const Tensor weight = !call.weights.empty() ? call.weights[0] : Tensor();
  const Tensor bias = call.weights.size() > 1 ? call.weights[1] : Tensor();
  return layer_norm(tape, call.inputs[0], weight, bias, call.input_shapes[0].back());
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
    case ActivationKind::quick_gelu: return mul(tape, x, sigmoid(tape, mul_constant(tape, x)));
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

std::vector<Tensor> run_operator(Tape& tape, OperatorCall call) {
  const model::Operator& op = *call.op;
  switch (op.kind) {
    case OperatorKind::embedding:
      return {embedding(tape, call.inputs[0], call.weights[0], call.output_shapes[0].back())};
    case OperatorKind::position_embedding: return {position_embedding(tape, call)};
    case OperatorKind::linear: return {linear_layer(tape, call)};
    case OperatorKind::layer_norm: return {run_layer_norm(tape, call)};
    case OperatorKind::rms_norm: return {rms_norm(tape, call)};
    case OperatorKind::rotary_table: return rotary_tables(tape, call);
    case OperatorKind::rotary: {
      const Tensor& cosine = call.inputs[2];
      const Tensor& sine = call.inputs[3];
      Tensor query = rotated(tape, call, call.inputs[0], cosine, sine);
      call.inputs[0] = Tensor();  // q is bound again before k is
      return {std::move(query), rotated(tape, call, call.inputs[1], cosine, sine)};
    }
    case OperatorKind::split: return split_parts(tape, call);
    case OperatorKind::heads: return {split_heads(tape, call.inputs[0], call.output_shapes[0][1])};
    case OperatorKind::latent_heads: return latent_heads(tape, call);
    case OperatorKind::attention:
      return {call.recomputed ? recomputed_attention(tape, call) : attention(tape, call)};
    case OperatorKind::activation:
      if (op.in_place) return {relu_in_place(tape, call.inputs[0])};
      if (call.variants->gelu == GeluCode::fused && is_written_out_gelu(op.activation)) {
        return {gelu(tape, call.inputs[0])};
      }
      if (is_scripted(*call.variants, op)) {
        return {scripted_gelu(tape, call.inputs[0], call.captured)};
      }
      return {activation(tape, op.activation, call.inputs[0])};
    case OperatorKind::gated_activation: return {gated_activation(tape, call)};
    case OperatorKind::bias_activation:
      return {bias_activation(tape, call.inputs[0], weight_of(call, 0), call.input_shapes[0].back(),
                              op.fused_gate_up)};
    case OperatorKind::bias_dropout_add:
      return {bias_dropout_add(tape, call.inputs[0], call.inputs[1], weight_of(call, 0),
                               call.input_shapes[0].back(),
                               call.variants->dropout ? op.probability : 0.0)};
    case OperatorKind::add:
      if (op.in_place) return {add_in_place(tape, call.inputs[0], call.inputs[1])};
      return {add(tape, call.inputs[0], broadcast_operand(tape, call))};
    case OperatorKind::scale: return {mul_constant(tape, call.inputs[0])};
    case OperatorKind::dropout:
      return {dropout(tape, call.inputs[0], call.variants->dropout ? op.probability : 0.0)};
    case OperatorKind::softcap: {
      Tensor capped = tanh(tape, mul_constant(tape, call.inputs[0]));
      return {mul_constant(tape, std::move(capped))};
    }
    case OperatorKind::causal_lm_loss: return causal_lm_loss(tape, call);
    case OperatorKind::copy_to_ranks: return {copy_to_ranks(tape, call.inputs[0])};
    case OperatorKind::sum_over_ranks: return {sum_over_ranks(tape, call.inputs[0])};
    case OperatorKind::gather_sequence: return {gathered_tokens(tape, call)};
    case OperatorKind::scatter_sequence: return {scattered_tokens(tape, call)};
    case OperatorKind::classification_loss:
    case OperatorKind::masked_lm_loss:
    case OperatorKind::span_loss:
    case OperatorKind::outputs_loss:
    case OperatorKind::squared_loss: return {run_loss(tape, call), call.inputs[0]};
    case OperatorKind::router:
    case OperatorKind::expert_assignment:
    case OperatorKind::experts: return run_mixture_operator(tape, call);
    case OperatorKind::adapted_linears:
    case OperatorKind::adapted_mlp: return run_fused_adapters(tape, call);
    default: return run_image_operator(tape, call);
  }
}

}  // namespace steelyard::step
