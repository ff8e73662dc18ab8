// Transformer Engine's Linear and GroupedLinear in fp8
// (transformer_engine/pytorch/module/linear.py, grouped_linear.py, base.py: quantize_weight,
// grad_output_preprocess).
//
// A cast kernel writes the rows, which one product reads, and where the GPU or the scaling needs it
// the columns, which another one reads. Forward reads rows; of the input only columns are kept for
// the weight's gradient. Where backward gathers the tokens again, rows are kept, since fp8 with one
// scale per tensor travels as rows, and the columns are made of what arrived.
#include <memory>
#include <string>
#include <utility>

#include "step/fp8_casts.h"
#include "step/primitives.h"

namespace steelyard::step {

namespace {

using Gradients = std::vector<Tensor>;

struct Grouped {
  std::int64_t rows = 0, inputs = 0, outputs = 0, count = 1;
  [[nodiscard]] std::int64_t each() const { return ceil_divide(rows, count); }
  [[nodiscard]] std::int64_t weight() const { return checked_multiply(inputs, outputs); }
};

// Values and scales, as one storage.
Tensor layout(Tape& tape, std::int64_t numel, std::int64_t last, bool weight,
              std::string_view name) {
  const Bytes bytes = fp8_layout_bytes(tape.arithmetic().fp8.scaling, numel, last, weight);
  Tensor whole = tape.allocate(bytes.value(), DType::fp8, name);
  return Tape::alias(whole.storage, numel, DType::fp8);
}

struct Layouts {
  Tensor rows, columns;
  // What a later product reads.
  [[nodiscard]] const Tensor& later() const { return columns ? columns : rows; }
};

// `fused`: the product that made x wrote it so.
// `parts`: rows of so many experts.
Layouts quantize(Tape& tape, const Tensor& x, std::int64_t last, bool weight, bool columns,
                 bool fused = false, std::int64_t parts = 1) {
  Layouts made;
  tape.begin_operation(OperationKind::other, {&x});
  made.rows = layout(tape, x.numel, last, weight, "quantize");
  if (columns && tape.arithmetic().fp8.two_layouts) {
    made.columns = layout(tape, x.numel, last, weight, "quantize");
  }
  if (fused) return made;
  // 4 bits: the largest value is found by a pass of its own (quantizer.cpp, quantize_impl).
  const bool nibble = tape.arithmetic().fp8.scaling == Fp8Scaling::nibble;
  const std::int64_t written = (made.columns ? 2 : 1) * (nibble ? x.numel / 2 : x.numel);
  const Bytes traffic = (nibble ? 2 : 1) * bytes_of(x) + Bytes(written);
  if (parts > 1 && !tape.arithmetic().fp8.casts_together) {
    const std::size_t before = tape.program().work.size();
    tape.pointwise("grouped_quantize", traffic);
    if (tape.program().work.size() > before) tape.program().work.back().batch = parts;
  } else {
    tape.pointwise("quantize", traffic);
  }
  return made;
}

Tensor columns_of_rows(Tape& tape, std::int64_t numel, std::int64_t last) {
  Tensor columns = layout(tape, numel, last, false, "fp8_transpose");
  tape.pointwise("fp8_transpose", Bytes(2 * numel));
  return columns;
}

void multiply(Tape& tape, std::string_view name, std::int64_t m, std::int64_t n, std::int64_t k,
              std::int64_t count, DType result = DType::bf16, std::int64_t touched = 1) {
  const bool nibble = tape.arithmetic().fp8.scaling == Fp8Scaling::nibble;
  const std::int64_t operands = checked_add(checked_multiply(m, k), checked_multiply(k, n));
  const std::int64_t read = nibble ? operands / 2 : operands;
  const std::int64_t written = checked_multiply(m, n) * facts::bytes_of(result) * touched;
  tape.gemm(count > 1 ? "grouped_" + std::string(name) : std::string(name),
            nibble ? DType::fp4 : DType::fp8, m, n, k, count,
            Bytes(checked_multiply(count, checked_add(read, written))));
}

struct Plan {  // of a backward pass
  Grouped shape;
  bool wants_x = false, wants_w = false;
  bool gathers_again = false;  // the tokens of the other ranks
  bool casts_input = false;    // x was kept as it came
  bool has_columns = false;    // of x, from forward
  bool recasts = false;        // weights
  bool wants_bias = false;
  FusedCasts fused;
  DType input_type = DType::bf16;
};

Tensor columns_of_input(Tape& t, const Plan& plan, Tensor& rows) {
  const std::int64_t numel = checked_multiply(plan.shape.rows, plan.shape.inputs);
  const bool two = t.arithmetic().fp8.two_layouts;
  if (plan.casts_input) {
    const Layouts cast =
        quantize(t, t.external(numel, plan.input_type), plan.shape.inputs, false, true);
    return cast.later();
  }
  if (plan.has_columns || !two) return Tensor();
  Tensor columns = columns_of_rows(t, numel, plan.shape.inputs);
  rows = Tensor();
  return columns;
}

Gradients backward_of(Tape& t, const Plan& plan, const Tensor& dy) {
  const Grouped& s = plan.shape;
  const DType type = dy.dtype;
  const bool two = t.arithmetic().fp8.two_layouts;
  Gradients result(static_cast<std::size_t>(s.count) + 1);
  if (plan.wants_bias) {
    result.push_back(t.allocate(s.outputs, type, "sum"));
    t.pointwise("sum", bytes_of(dy));
  }
  Layouts gradient;
  if (!dy.quantized) {
    gradient = quantize(t, dy, s.outputs, false, plan.wants_w, plan.fused.gradient, s.count);
  } else if (two && plan.wants_w) {
    gradient.columns = columns_of_rows(t, dy.numel, s.outputs);
  }
  Tensor rows;
  if (plan.wants_w && plan.gathers_again) {
    rows = layout(t, s.rows * s.inputs, s.inputs, false, "all_gather_tokens");
    t.communicate(Collective::all_gather, "all_gather_tokens", rows.storage->bytes,
                  t.options().tensor, t.options().async_tensor);
  }
  Layouts weights;
  if (plan.wants_x) {
    if (plan.recasts) {
      weights = quantize(t, t.external(s.weight() * s.count, type), s.inputs, true, true);
    }
    result[0] = t.allocate(checked_multiply(s.rows, s.inputs), type, "mm_input_gradient");
    multiply(t, "mm_input_gradient", s.each(), s.inputs, s.outputs, s.count);
  }
  if (!plan.wants_w) return result;
  const Tensor columns = columns_of_input(t, plan, rows);
  for (std::int64_t i = 0; i < s.count; ++i) {
    result[static_cast<std::size_t>(i) + 1] = t.allocate(s.weight(), type, "mm_weight_gradient");
  }
  // Added to what is there: read and written.
  const std::optional<DType> sum = t.options().accumulates_into;
  multiply(t, "mm_weight_gradient", s.outputs, s.inputs, s.each(), s.count,
           sum.value_or(DType::bf16), sum ? 2 : 1);
  return result;
}

// Casts of the weights for one pass; empty where they last.
std::vector<Layouts> cast_weights(Tape& tape, const std::vector<Tensor>& weights,
                                  std::int64_t inputs, bool columns) {
  std::vector<Layouts> casts;
  if (tape.arithmetic().fp8.caches_weights) return casts;
  for (const Tensor& weight : weights) {
    if (weight.dtype == DType::fp8) continue;
    casts.push_back(quantize(tape, weight, inputs, true, columns));
  }
  return casts;
}

}  // namespace

Bytes fp8_layout_bytes(Fp8Scaling scaling, std::int64_t numel, std::int64_t last, bool weight) {
  Bytes sum;
  for (const Fp8Piece& piece : fp8_pieces(scaling, numel, last, weight)) {
    sum += bytes_of(piece.numel, piece.dtype);
  }
  return sum;
}

Tensor engine_cast(Tape& tape, const Tensor& x) {
  return quantize(tape, x, x.numel, false, false).rows;
}

EngineCasts engine_casts(Tape& tape, const Tensor& x, std::int64_t last) {
  Layouts made = quantize(tape, x, last, false, true);
  return {std::move(made.rows), std::move(made.columns)};
}

Tensor engine_linear(Tape& tape, const Tensor& x, const std::vector<Tensor>& weights,
                     const Tensor& bias, std::int64_t inputs, std::int64_t outputs,
                     bool keeps_input, FusedCasts fused) {
  const Fp8& fp8 = tape.arithmetic().fp8;
  const Tensor a = x.quantized ? x : to_compute(tape, x);
  Plan plan;
  plan.shape = {a.numel / inputs, inputs, outputs, static_cast<std::int64_t>(weights.size())};
  plan.fused = fused;
  plan.wants_x = a.requires_grad;
  for (const Tensor& weight : weights) plan.wants_w = plan.wants_w || weight.requires_grad;
  plan.wants_bias = bias && bias.requires_grad;
  const bool tracked = tape.grad_enabled() && (plan.wants_x || plan.wants_w || plan.wants_bias);
  plan.recasts = fp8.recasts_weights && weights.front().dtype != DType::fp8;
  plan.input_type = a.dtype;
  plan.gathers_again = a.quantized && a.part != nullptr;
  plan.casts_input = keeps_input && !a.quantized;

  Layouts input;
  if (!a.quantized) {
    const bool columns = tracked && plan.wants_w && !plan.casts_input;
    input = quantize(tape, a, inputs, false, columns, fused.input, plan.shape.count);
  }
  plan.has_columns = static_cast<bool>(input.columns);
  std::vector<Layouts> casts = cast_weights(tape, weights, inputs, tracked && !plan.recasts);
  tape.begin_operation(OperationKind::other, {&a});
  Tensor y = tape.allocate(checked_multiply(plan.shape.rows, outputs), a.dtype, "mm");
  multiply(tape, "mm", plan.shape.each(), outputs, inputs, plan.shape.count);
  if (!tracked) return y;

  std::vector<StorageRef> saved;
  if (plan.wants_w) {
    saved.push_back(plan.gathers_again                ? a.part
                    : a.quantized || plan.casts_input ? a.storage
                                                      : input.later().storage);
  }
  if (plan.wants_x && !plan.recasts) {
    for (const Layouts& cast : casts) {
      saved.push_back(cast.rows.storage);
      if (cast.columns) saved.push_back(cast.columns.storage);
    }
  }
  casts.clear();
  input = Layouts();
  std::vector<Edge> edges = {Tape::edge_of(a)};
  for (const Tensor& weight : weights) {
    const bool held_short = weight.dtype == DType::fp8;
    edges.push_back(held_short ? Tape::edge_of(weight) : Tape::validated_edge_of(weight));
  }
  if (plan.wants_bias) edges.push_back(Tape::validated_edge_of(bias));
  tape.track(
      y, "mm", std::move(edges), std::move(saved),
      [plan](Tape& t, const Gradients& gradients) { return backward_of(t, plan, gradients[0]); });
  return y;
}

}  // namespace steelyard::step
