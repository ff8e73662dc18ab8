// Numbers that a file quantized, as exporters write them in pairs of nodes (QuantizeLinear and
// DequantizeLinear). What trains is the real tensor: a stored one of whole numbers stands for it,
// and a pair on the way of data is one operator that a gradient passes unchanged (fake
// quantization, torch/ao/quantization/fake_quantize.py).
#include "model/onnx_lowering.h"

namespace steelyard::model {

namespace {

void lower_quantize(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  if (!x.is_tensor()) {
    call.out[0] = x;  // the tensor that it was made of trains
    return;
  }
  call.out[0] = call.lowering.emit(OperatorKind::unary, call, {&x}, x.shape, x.kind);
  call.lowering.last().saves = Saves::input;  // which elements were clamped
}

// Scale and zero point of the second and third output are numbers.
void lower_dynamic_quantize(OnnxCall& call) {
  lower_quantize(call);
  for (std::size_t i = 1; i < call.out.size(); ++i) {
    call.out[i] = constant_like({}, i == 1 ? ElementKind::real : ElementKind::index);
  }
}

void lower_dequantize(OnnxCall& call) {
  const OnnxValue& x = call.at(0);
  call.out[0] = x;
  if (x.kind == ElementKind::real || x.is_tensor()) return;
  call.out[0] = constant_like(x.shape, ElementKind::real);
  call.lowering.add_weight(call.out[0], x.name);
}

}  // namespace

const OnnxOperators& onnx_quantized_operators() {
  static const OnnxOperators kOperators = {
      {"DequantizeLinear", {lower_dequantize, 2}},
      {"DynamicQuantizeLinear", {lower_dynamic_quantize}},
      {"QuantizeLinear", {lower_quantize, 2}},
  };
  return kOperators;
}

}  // namespace steelyard::model
