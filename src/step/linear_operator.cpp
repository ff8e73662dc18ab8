#include "step/linear_operator.h"

#include <utility>

#include "step/primitives.h"
#include "step/primitives_fp8.h"
#include "step/primitives_quantized.h"

namespace steelyard::step {

namespace {

using facts::BaseQuantization;

Tensor base_layer(Tape& tape, const OperatorCall& call, const Tensor& bias) {
  const std::int64_t inputs = call.input_shapes[0].back();
  const std::int64_t outputs = call.output_shapes[0].back();
  if (tape.arithmetic().fp8.on() && fits_fp8(inputs, outputs)) {
    const bool keeps = call.reads_attention && tape.arithmetic().fp8.reuses_attention;
    return fp8_linear(tape, call.inputs[0], call.weights[0], bias, inputs, outputs, keeps);
  }
  if (call.quantization.kind == BaseQuantization::none) {
    Tensor y = linear(tape, call.inputs[0], call.weights[0], bias, inputs, outputs);
    // F.linear until torch 1.11: matmul, then output.add_(bias), where there are more than two
    // dimensions (pytorch pull request 74070: 15 % of such a product on A100).
    const bool adds = bias && call.variants->adds_bias && !tape.options().compiled;
    if (adds) tape.pointwise("add_", 2 * bytes_of(y));
    return y;
  }
  return quantized_linear(tape, call.inputs[0], bias, inputs, outputs, call.quantization,
                          call.captured);
}

bool is_four_bit(BaseQuantization kind) {
  return kind == BaseQuantization::nf4 || kind == BaseQuantization::nf4_dq ||
         kind == BaseQuantization::fp4;
}

}  // namespace

// peft/tuners/lora/layer.py, Linear.forward, and bnb.py, Linear4bit.forward:
//   result = self.base_layer(x)              (4-bit: .clone())
//   x = x.to(lora_A.weight.dtype)            (bitsandbytes: not under autocast)
//   result = result + lora_B(lora_A(dropout(x))) * scaling
//   result = result.to(torch_result_dtype)
Tensor adapted(Tape& tape, const OperatorCall& call, const Tensor& input, const LowRankPair& pair,
               Tensor result) {
  const model::Operator& op = *call.op;
  const BaseQuantization kind = call.quantization.kind;
  // torchtune's LoRALinear.forward adds to linear_nf4's result itself.
  const bool by_subclass = is_four_bit(kind) && call.quantization.subclass;
  const bool of_bitsandbytes =
      !by_subclass && (is_four_bit(kind) || kind == BaseQuantization::int8);
  if (is_four_bit(kind) && !by_subclass) result = clone(tape, std::move(result));
  const DType before = result.dtype;
  const bool converts = !of_bitsandbytes || !tape.arithmetic().autocast;
  Tensor x = converts ? to(tape, input, pair.down.dtype) : input;
  const bool of_result = call.variants->drops_adapter_result;
  Tensor low = linear(tape, of_result ? x : dropout(tape, x, op.adapter_dropout), pair.down,
                      Tensor(), pair.inputs, op.adapter_rank);
  const bool early = call.variants->scales_low_rank;
  if (early) low = mul_constant(tape, std::move(low));
  Tensor high = linear(tape, low, pair.up, Tensor(), op.adapter_rank, pair.outputs);
  low = Tensor();
  if (!early) high = mul_constant(tape, std::move(high));
  if (of_result) high = dropout(tape, std::move(high), op.adapter_dropout);
  high = padded_columns(tape, std::move(high), result.numel);  // an adapter of some parts
  if (of_bitsandbytes) high = to(tape, std::move(high), before);
  return to(tape, add(tape, std::move(result), std::move(high)), before);
}

Tensor adapted_expert(Tape& tape, const OperatorCall& call, const Tensor& input,
                      const ExpertMatrix& matrix, Tensor result) {
  if (call.op->adapter_rank == 0) return result;
  const std::size_t first = call.weights.size() / 3 + 2 * matrix.weight;
  if (!call.weights[first]) return result;
  return adapted(tape, call, input,
                 {call.weights[first], call.weights[first + 1], matrix.inputs, matrix.outputs},
                 std::move(result));
}

Tensor linear_layer(Tape& tape, const OperatorCall& call) {
  const Tensor bias = call.weights.size() > 1 ? call.weights[1] : Tensor();
  Tensor result = base_layer(tape, call, bias);
  if (call.op->adapter_rank == 0) return result;
  return adapted(
      tape, call, call.inputs[0],
      {call.weights[2], call.weights[3], call.input_shapes[0].back(), call.op->adapter_outputs},
      std::move(result));
}

}  // namespace steelyard::step
