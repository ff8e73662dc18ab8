#include "step/primitives_quantized.h"

#include <utility>
#include <vector>

#include "step/primitives.h"

namespace steelyard::step {

namespace {

using facts::BaseQuantization;
using Gradients = std::vector<Tensor>;

constexpr std::int64_t kFourBitBlock = 64;  // elements per absolute maximum

struct Matrix {
  std::int64_t inputs = 0, outputs = 0;
  DType dtype = DType::bf16;  // of the product
  bool nested = false;        // statistics are quantized: they are widened first
  bool subclass = false;      // dequantized by PyTorch's operators
  bool unpacked = false;      // GPTQ's: the same, outside of an autograd function
  bool from_half = false;     // the full copy is fp16 first (quant_state.dtype)
  [[nodiscard]] std::int64_t numel() const { return checked_multiply(inputs, outputs); }
};

// torchao, NF4Tensor.get_original_weight: both nibbles of each byte as int64, the values they name,
// each half times its statistics, then stacked. All are variables until the function returns.
// Compiled, one kernel does it.
Tensor dequantized_by_operators(Tape& tape, const Matrix& matrix) {
  const std::int64_t half = ceil_divide(matrix.numel(), 2);
  const auto variable = [&](DType dtype, std::string_view name) {
    Tensor made = tape.allocate(half, dtype, name);
    tape.pointwise(name, 2 * bytes_of(made));
    return made;
  };
  const Tensor first = variable(DType::int64, "nibbles");
  const Tensor second = variable(DType::int64, "nibbles");
  const Tensor first_values = variable(matrix.dtype, "index_select");
  const Tensor second_values = variable(matrix.dtype, "index_select");
  const auto scaled = [&] {
    const Tensor repeated = variable(matrix.dtype, "repeat_statistics");
    return variable(matrix.dtype, "mul");
  };
  const Tensor first_scaled = scaled();
  const Tensor second_scaled = scaled();
  Tensor full = tape.allocate(matrix.numel(), matrix.dtype, "dequantize");
  tape.pointwise("dequantize", 2 * bytes_of(full));
  return full;
}

// AutoGPTQ, QuantLinear.forward of 128 rows or more: each int32 word eight times over, shifted, as
// bytes, masked in place, less its zero, times its scale.
Tensor unpacked_integers(Tape& tape, const Matrix& matrix) {
  const std::int64_t numel = matrix.numel();
  const auto moved = [&](const Tensor& read, const Tensor& written, std::string_view name) {
    tape.pointwise(name, bytes_of(read) + bytes_of(written));
  };
  Tensor words = tape.allocate(numel, DType::int32, "bitwise_right_shift");
  tape.pointwise("bitwise_right_shift", bytes_of(words) + Bytes(numel / 2));
  Tensor bytes = tape.allocate(numel, DType::int8, "to");
  moved(words, bytes, "to");
  words = Tensor();
  moved(bytes, bytes, "bitwise_and");
  const Tensor centred = tape.allocate(numel, DType::int8, "sub");
  moved(bytes, centred, "sub");
  bytes = Tensor();
  Tensor full = tape.allocate(numel, matrix.dtype, "mul");
  moved(centred, full, "mul");
  return full;
}

// The full matrix, and what making it holds; dies with the caller's handle.
Tensor dequantized(Tape& tape, const Matrix& matrix) {
  if (matrix.unpacked) return unpacked_integers(tape, matrix);
  if (matrix.subclass && !tape.options().compiled) return dequantized_by_operators(tape, matrix);
  Tensor statistics;
  if (matrix.nested && !matrix.subclass) {
    statistics = tape.allocate(ceil_divide(matrix.numel(), kFourBitBlock), DType::fp32, "absmax");
  }
  const bool converts = matrix.from_half && !matrix.subclass && matrix.dtype != DType::fp16;
  const DType first = converts ? DType::fp16 : matrix.dtype;
  Tensor full = tape.allocate(matrix.numel(), first, "dequantize");
  tape.pointwise("dequantize", bytes_of(full) + Bytes(matrix.numel() / 2));
  if (!converts) return full;
  Tensor converted = tape.allocate(matrix.numel(), matrix.dtype, "to");
  tape.pointwise("to", bytes_of(full) + bytes_of(converted));
  return converted;
}

Bytes product_traffic(const Matrix& m, std::int64_t rows) {
  const std::int64_t ends = checked_multiply(rows, m.inputs + m.outputs);
  return bytes_of(checked_add(ends, m.numel()), m.dtype);
}

// The bias trains seldom, but may (train.lora.trainable).
Gradients gradients_of(Tape& t, const Matrix& matrix, const Tensor& dy, bool wants_x,
                       bool wants_bias) {
  Gradients result(wants_bias ? 2 : 1);
  if (wants_bias) {
    result[1] = t.allocate(matrix.outputs, dy.dtype, "sum");
    t.pointwise("sum", bytes_of(dy));
  }
  if (!wants_x) return result;
  const std::int64_t rows = dy.numel / matrix.outputs;
  const Tensor full = matrix.unpacked ? Tensor() : dequantized(t, matrix);
  result[0] = t.allocate(checked_multiply(rows, matrix.inputs), dy.dtype, "mm_input_gradient");
  t.gemm("mm_input_gradient", dy.dtype, rows, matrix.inputs, matrix.outputs, 1,
         product_traffic(matrix, rows));
  return result;
}

// LLM.int8: the input's rows as bytes, the product in int32, then scaled to the input's type.
Tensor int8_product(Tape& tape, const Tensor& a, const Matrix& matrix) {
  const std::int64_t rows = a.numel / matrix.inputs;
  const Tensor bytes = tape.allocate(a.numel, DType::int8, "int8_quantize");
  const Tensor scales = tape.allocate(rows, DType::fp32, "int8_quantize");
  tape.pointwise("int8_quantize", bytes_of(a) + bytes_of(bytes));
  const Tensor wide =
      tape.allocate(checked_multiply(rows, matrix.outputs), DType::int32, "int8_mm");
  tape.gemm("int8_mm", DType::int8, rows, matrix.outputs, matrix.inputs, 1,
            product_traffic(matrix, rows));
  Tensor y = tape.allocate(wide.numel, a.dtype, "int8_mm_dequant");
  tape.pointwise("int8_mm_dequant", bytes_of(wide) + bytes_of(y));
  return y;
}

Tensor product(Tape& tape, const Tensor& a, const Matrix& matrix, std::vector<StorageRef>& saved) {
  const std::int64_t rows = a.numel / matrix.inputs;
  const Tensor full = dequantized(tape, matrix);
  if (matrix.unpacked) saved.push_back(full.storage);  // torch.matmul's, for the input's gradient
  Tensor y = tape.allocate(checked_multiply(rows, matrix.outputs), a.dtype, "mm");
  tape.gemm("mm", a.dtype, rows, matrix.outputs, matrix.inputs, 1, product_traffic(matrix, rows));
  return y;
}

}  // namespace

Tensor dequantized_matrix(Tape& tape, std::int64_t inputs, std::int64_t outputs, DType dtype,
                          Quantized how) {
  return dequantized(
      tape, {inputs, outputs, dtype, how.nested, how.subclass, how.unpacked, how.from_half});
}

Tensor quantized_linear(Tape& tape, const Tensor& x, const Tensor& bias, std::int64_t inputs,
                        std::int64_t outputs, Quantized how, std::vector<Tensor>* held) {
  // Linear4bit.forward: x.to(compute_dtype), and the result back in x's own type.
  const Tensor a = to(tape, x, tape.arithmetic().compute);
  const bool unpacked = how.unpacked && how.kind == BaseQuantization::gptq_int4;
  const Matrix matrix{inputs, outputs, a.dtype, how.nested, how.subclass, unpacked, how.from_half};
  const bool is_int8 = how.kind == BaseQuantization::int8;
  if (how.keeps_input && held != nullptr) held->push_back(a);
  std::vector<StorageRef> saved;
  tape.begin_operation(OperationKind::other, {&a});
  Tensor y = is_int8 ? int8_product(tape, a, matrix) : product(tape, a, matrix, saved);
  const bool wants_bias = bias && bias.requires_grad && tape.grad_enabled();
  if (!tape.tracks({&a}) && !wants_bias) return to(tape, std::move(y), x.dtype);
  if (is_int8 || how.keeps_input) saved.push_back(a.storage);  // ctx.tensors keeps A
  const bool wants_x = a.requires_grad;
  std::vector<Edge> edges = {Tape::edge_of(a)};
  if (wants_bias) edges.push_back(Tape::edge_of(bias));
  tape.track(y, is_int8 ? "int8_mm" : "dequantized_mm", std::move(edges), std::move(saved),
             [=](Tape& t, const Gradients& gradients) {
               return gradients_of(t, matrix, gradients[0], wants_x, wants_bias);
             });
  return to(tape, std::move(y), x.dtype);
}

Tensor clone(Tape& tape, Tensor argument) {
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::pointwise, {&x});
  Tensor y = tape.allocate(x.numel, x.dtype, "clone");
  y.dense = x.dense;
  tape.pointwise("clone", 2 * bytes_of(x));
  if (tape.tracks({&x})) {
    tape.track(y, "clone", {Tape::edge_of(x)}, {},
               [](Tape&, const Gradients& gradients) { return Gradients{gradients[0]}; });
  }
  return y;
}

Tensor padded_columns(Tape& tape, Tensor argument, std::int64_t numel) {
  if (argument.numel == numel) return argument;
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::pointwise, {&x});
  Tensor y = tape.allocate(numel, x.dtype, "pad");
  tape.pointwise("pad", bytes_of(x) + bytes_of(y));
  if (tape.tracks({&x})) {
    const std::int64_t narrow = x.numel;
    // derivatives.yaml, index_copy: grad.index_select(dim, index).expand_as(source) keeps the
    // source.
    tape.track(y, "pad", {Tape::edge_of(x)}, {x.storage},
               [narrow](Tape& t, const Gradients& gradients) {
                 Tensor dx = t.allocate(narrow, gradients[0].dtype, "index_select");
                 t.pointwise("index_select", 2 * bytes_of(dx));
                 return Gradients{dx};
               });
  }
  return y;
}

}  // namespace steelyard::step
