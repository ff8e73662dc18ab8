// Products with a frozen matrix that is held quantized. Each is an autograd function of its own
// that saves no activation, makes a full copy of the matrix in the input's type for the product,
// and once more for the gradient of the input.
//
// Sources: bitsandbytes/autograd/_functions.py (MatMul4Bit, MatMul8bitLt), nn/modules.py
// (Linear4bit.forward), functional.py (dequantize_4bit), auto_gptq triton kernels
// (QuantLinearFunction), auto_gptq/nn_modules/qlinear/qlinear_cuda_old.py (operators).
#pragma once

#include "facts/enums.h"
#include "step/tape.h"

namespace steelyard::step {

struct Quantized {
  facts::BaseQuantization kind = facts::BaseQuantization::none;
  bool nested = false;  // 4-bit statistics are themselves quantized
  // bitsandbytes before 0.43.2 kept it as an attribute of the product's node (ctx.tensors):
  // backward does not free it, it lives as long as the node.
  bool keeps_input = false;
  bool subclass = false;   // torchao's NF4Tensor and LinearNF4, not bitsandbytes' kernels
  bool unpacked = false;   // GPTQ's integers by PyTorch's operators; the product keeps the result
  bool from_half = false;  // quantized from fp16, which the full copy has before another type

  friend bool operator==(const Quantized&, const Quantized&) = default;
};

// A full copy of a quantized matrix; what making it takes besides is gone when this returns.
[[nodiscard]] Tensor dequantized_matrix(Tape& tape, std::int64_t inputs, std::int64_t outputs,
                                        DType dtype, Quantized how);
// x [rows, inputs] times a quantized matrix [outputs, inputs]; bias may be empty. What the node
// holds of its own goes to `held`, where that is given.
[[nodiscard]] Tensor quantized_linear(Tape& tape, const Tensor& x, const Tensor& bias,
                                      std::int64_t inputs, std::int64_t outputs, Quantized how,
                                      std::vector<Tensor>* held);

// A copy of its own; the gradient passes through.
[[nodiscard]] Tensor clone(Tape& tape, Tensor x);
// Columns written into zeros of a wider matrix of `numel` elements; x itself when it is as wide.
[[nodiscard]] Tensor padded_columns(Tape& tape, Tensor x, std::int64_t numel);

}  // namespace steelyard::step
