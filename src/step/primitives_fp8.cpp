// Float8Linear of torchao (0.9 and later: matmul_with_hp_or_float8_args saves the operands as they
// came), written as the statements of its code. Transformer Engine's is in primitives_engine.cpp.
#include "step/primitives_fp8.h"

#include <memory>
#include <utility>

#include "step/fp8_casts.h"
#include "step/primitives.h"

namespace steelyard::step {

namespace {

using Gradients = std::vector<Tensor>;

// tensor_to_scale: max(abs(x)), per tensor, per row or per block.
Tensor scale_of(Tape& tape, const Tensor& x, std::int64_t last) {
  const Fp8Piece piece = fp8_pieces(tape.arithmetic().fp8.scaling, x.numel, last, false)[1];
  tape.begin_operation(OperationKind::pointwise, {&x});
  const Tensor magnitude = tape.allocate(x.numel, x.dtype, "abs");
  tape.pointwise("abs", 2 * bytes_of(x));
  tape.begin_operation(OperationKind::reduction, {&magnitude});
  Tensor scale = tape.allocate(piece.numel, piece.dtype, "amax");
  tape.pointwise("amax", bytes_of(magnitude));
  return scale;
}

Tensor pointwise_copy(Tape& tape, const Tensor& x, DType dtype, std::string_view name) {
  tape.begin_operation(OperationKind::pointwise, {&x});
  Tensor y = tape.allocate(x.numel, dtype, name);
  tape.pointwise(name, bytes_of(x) + bytes_of(y));
  return y;
}

// hp_tensor_and_scale_to_float8: (x.to(fp32) * scale).clamp(...).to(float8)
Fp8Cast cast_by_operations(Tape& tape, const Tensor& x, std::int64_t last) {
  if (Tensor known = tape.known_cast(x, DType::fp8)) return {std::move(known), {}};
  Fp8Cast cast;
  cast.scale = scale_of(tape, x, last);
  Tensor wide = x.dtype == DType::fp32 ? x : pointwise_copy(tape, x, DType::fp32, "to");
  tape.begin_operation(OperationKind::pointwise, {&wide, &cast.scale});
  const Tensor scaled = tape.allocate(x.numel, DType::fp32, "mul");
  tape.pointwise("mul", 2 * bytes_of(scaled));
  wide = Tensor();
  const Tensor clamped = pointwise_copy(tape, scaled, DType::fp32, "clamp");
  cast.data = pointwise_copy(tape, clamped, DType::fp8, "to_float8");
  tape.remember_cast(x, cast.data);
  return cast;
}

// Of a weight that FSDP gathered in fp8 nothing is to be cast.
Fp8Cast cast_operand(Tape& tape, const Tensor& x, std::int64_t last) {
  if (x.quantized || x.dtype == DType::fp8) return {x, {}};
  return cast_by_operations(tape, x, last);
}

// preprocess_addmm: _scaled_mm takes a row-major and a column-major operand.
Tensor transposed_copy(Tape& tape, const Tensor& x) {
  return pointwise_copy(tape, x, DType::fp8, "contiguous");
}

struct Shape {
  std::int64_t rows = 0, inputs = 0, outputs = 0;
};

Tensor scaled_mm(Tape& tape, const Tensor& a, const Tensor& b, std::int64_t m, std::int64_t n,
                 std::int64_t k, DType result, std::string_view name) {
  tape.begin_operation(OperationKind::mm, {&a, &b});
  Tensor y = tape.allocate(checked_multiply(m, n), result, name);
  tape.gemm(name, DType::fp8, m, n, k, 1,
            bytes_of(checked_add(checked_multiply(m, k), checked_multiply(k, n)), DType::fp8) +
                bytes_of(y));
  return y;
}

// The storages that the node saved; a tape that moved them to the host made others of them.
struct Saved {
  std::weak_ptr<Storage> storage;
  std::int64_t numel = 0;
  DType dtype = DType::fp32;
  bool quantized = false;

  explicit Saved(const Tensor& tensor)
      : storage(tensor.storage),
        numel(tensor.numel),
        dtype(tensor.dtype),
        quantized(tensor.quantized) {}
  [[nodiscard]] Tensor get(Tape& tape) const {
    StorageRef there = storage.lock();
    Tensor tensor =
        there ? Tape::alias(std::move(there), numel, dtype) : tape.external(numel, dtype);
    tensor.quantized = quantized;
    return tensor;
  }
};

Gradients backward_of(Tape& t, const Shape& s, const Saved& input, const Saved& weight,
                      const Tensor& dy, bool wants_x, bool wants_w) {
  Gradients result(2);
  const DType type = dy.dtype;
  Fp8Cast gradient, matrix, again, x;  // variables of the function: they stay until it returns
  if (wants_x) {
    gradient = cast_operand(t, dy, s.outputs);
    matrix = cast_operand(t, weight.get(t), s.inputs);
    const Tensor columns = transposed_copy(t, matrix.data);
    result[0] = scaled_mm(t, gradient.data, columns, s.rows, s.inputs, s.outputs, type,
                          "mm_input_gradient");
  }
  if (wants_w) {
    again = cast_operand(t, dy, s.rows);
    x = cast_operand(t, input.get(t), s.rows);
    const Tensor first = transposed_copy(t, again.data);
    const Tensor second = transposed_copy(t, x.data);
    result[1] =
        scaled_mm(t, first, second, s.outputs, s.inputs, s.rows, type, "mm_weight_gradient");
  }
  return result;
}

// output + bias.to(output.dtype)
Tensor add_bias(Tape& tape, Tensor y, const Tensor& bias) {
  if (!bias) return y;
  Tensor sum = pointwise_copy(tape, y, y.dtype, "add_bias");
  if (!tape.tracks({&y, &bias})) return sum;
  tape.track(sum, "add_bias", {Tape::edge_of(y), Tape::validated_edge_of(bias)}, {},
             [](Tape&, const Gradients& gradients) {
               return Gradients{gradients[0], gradients[0]};
             });
  return sum;
}

Tensor torchao_linear(Tape& tape, const Tensor& x, const Tensor& weight, const Tensor& bias,
                      const Shape& shape) {
  const Tensor a = x.quantized ? x : to_compute(tape, x);
  Fp8Cast input = cast_operand(tape, a, shape.inputs);
  Fp8Cast matrix = cast_operand(tape, weight, shape.inputs);
  Tensor y = scaled_mm(tape, input.data, matrix.data, shape.rows, shape.outputs, shape.inputs,
                       a.dtype, "mm");
  if (!tape.tracks({&a, &weight})) return add_bias(tape, std::move(y), bias);
  std::vector<StorageRef> saved;
  if (weight.requires_grad) saved.push_back(a.storage);
  // The partitioner keeps a weight's cast, which is the smaller of the two; where forward runs
  // again for backward, both casts are made there.
  const bool keeps_cast = tape.options().compiled && !tape.recomputing();
  if (a.requires_grad) saved.push_back(keeps_cast ? matrix.data.storage : weight.storage);
  const Saved first(a);
  const Saved second(weight);
  const bool wants_x = a.requires_grad;
  const bool wants_w = weight.requires_grad;
  input = matrix = Fp8Cast();
  // The gradient of a weight gathered in fp8 has the type of the product.
  Edge to_weight =
      weight.dtype == DType::fp8 ? Tape::edge_of(weight) : Tape::validated_edge_of(weight);
  tape.track(y, "mm", {Tape::edge_of(a), std::move(to_weight)}, std::move(saved),
             [=](Tape& t, const Gradients& gradients) {
               return backward_of(t, shape, first, second, gradients[0], wants_x, wants_w);
             });
  return add_bias(tape, std::move(y), bias);
}

}  // namespace

Tensor fp8_linear(Tape& tape, const Tensor& x, const Tensor& weight, const Tensor& bias,
                  std::int64_t inputs, std::int64_t outputs, bool keeps_input) {
  if (tape.arithmetic().fp8.library == Fp8Library::transformer_engine) {
    return engine_linear(tape, x, {weight}, bias, inputs, outputs, keeps_input);
  }
  return torchao_linear(tape, x, weight, bias, {x.numel / inputs, inputs, outputs});
}

Tensor fp8_grouped_linear(Tape& tape, const Tensor& x, const std::vector<Tensor>& weights,
                          std::int64_t inputs, std::int64_t outputs, FusedCasts fused) {
  return engine_linear(tape, x, weights, Tensor(), inputs, outputs, false, fused);
}

Tensor fp8_cast(Tape& tape, const Tensor& x) {
  Tensor cast = tape.arithmetic().fp8.library == Fp8Library::transformer_engine
                    ? engine_cast(tape, x)
                    : cast_by_operations(tape, x, x.numel).data;
  cast.dtype = x.dtype;
  cast.quantized = true;
  return cast;
}

}  // namespace steelyard::step
