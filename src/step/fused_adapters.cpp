#include "step/fused_adapters.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "step/primitives.h"
#include "step/primitives_quantized.h"

namespace steelyard::step {

namespace {

using model::Operator;
using model::OperatorKind;
using Gradients = std::vector<Tensor>;

constexpr std::size_t kWeightsEach = 4;  // matrix, bias or none, A, B

// --- Which operators become one --------------------------------------------------------------

bool is_adapted(const Operator& op) {
  return op.kind == OperatorKind::linear && op.adapter_rank > 0 &&
         op.weights.size() == kWeightsEach;
}

bool same(model::TensorRef a, model::TensorRef b) {
  return a.shared == b.shared && a.index == b.index;
}

// Index of the one operator that is `wanted` and makes (or reads first) the tensor.
template <class Matches>
std::optional<std::size_t> find(const model::Block& block, const Matches& matches) {
  const auto found = std::find_if(block.operators.begin(), block.operators.end(), matches);
  if (found == block.operators.end()) return std::nullopt;
  return static_cast<std::size_t>(found - block.operators.begin());
}

// The operators of `parts` become `op` at the place of the first.
void replace(model::Block& block, std::vector<std::size_t> parts, Operator op) {
  std::sort(parts.begin(), parts.end());
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    block.operators.erase(block.operators.begin() + static_cast<std::ptrdiff_t>(*part));
  }
  block.operators.insert(block.operators.begin() + static_cast<std::ptrdiff_t>(parts.front()),
                         std::move(op));
}

std::string module_of(const std::string& name) {
  const std::size_t dot = name.rfind('.');
  return dot == std::string::npos ? "" : name.substr(0, dot + 1);
}

Operator joined(const model::Block& block, const std::vector<std::size_t>& linears,
                OperatorKind kind, const std::string& name) {
  const Operator& first = block.operators[linears.front()];
  Operator op;
  op.kind = kind;
  op.name = module_of(first.name) + name;
  op.inputs = first.inputs;
  op.adapter_rank = first.adapter_rank;
  op.adapter_dropout = first.adapter_dropout;
  for (const std::size_t index : linears) {
    const std::vector<std::int32_t>& weights = block.operators[index].weights;
    op.weights.insert(op.weights.end(), weights.begin(), weights.end());
  }
  return op;
}

bool fuse_mlp(model::Block& block) {
  const auto gated = find(block, [](const Operator& op) {
    return op.kind == OperatorKind::gated_activation && !op.fused_gate_up;
  });
  if (!gated) return false;
  const Operator& activation = block.operators[*gated];
  const auto maker = [&](model::TensorRef ref) {
    return find(block,
                [&](const Operator& op) { return is_adapted(op) && same(op.outputs[0], ref); });
  };
  const auto gate = maker(activation.inputs[0]);
  const auto up = maker(activation.inputs[1]);
  const auto down = find(block, [&](const Operator& op) {
    return is_adapted(op) && same(op.inputs[0], activation.outputs[0]);
  });
  if (!gate || !up || !down) return false;
  Operator op = joined(block, {*gate, *up, *down}, OperatorKind::adapted_mlp, "lora_mlp");
  op.activation = activation.activation;
  op.outputs = block.operators[*down].outputs;
  replace(block, {*gate, *up, *gated, *down}, std::move(op));
  return true;
}

bool fuse_projections(model::Block& block) {
  for (const Operator& first : block.operators) {
    if (!is_adapted(first)) continue;
    std::vector<std::size_t> parts;
    for (std::size_t i = 0; i < block.operators.size(); ++i) {
      const Operator& op = block.operators[i];
      if (is_adapted(op) && same(op.inputs[0], first.inputs[0])) parts.push_back(i);
    }
    if (parts.size() != 3) continue;
    Operator op = joined(block, parts, OperatorKind::adapted_linears, "lora_qkv");
    for (const std::size_t part : parts) op.outputs.push_back(block.operators[part].outputs[0]);
    replace(block, parts, std::move(op));
    return true;
  }
  return false;
}

bool fuse_output(model::Block& block) {
  const auto attention =
      find(block, [](const Operator& op) { return op.kind == OperatorKind::attention; });
  if (!attention) return false;
  const model::TensorRef result = block.operators[*attention].outputs[0];
  const auto output =
      find(block, [&](const Operator& op) { return is_adapted(op) && same(op.inputs[0], result); });
  if (!output) return false;
  Operator op = joined(block, {*output}, OperatorKind::adapted_linears, "lora_o");
  op.outputs = block.operators[*output].outputs;
  replace(block, {*output}, std::move(op));
  return true;
}

// --- What they hold ---------------------------------------------------------------------------

// One linear: out = x W^T + (dropout(x) A^T) (s B^T).
struct Linear {
  Tensor down, up;  // A, B
  std::int64_t inputs = 0, outputs = 0, rank = 0;
};

// What the function knows in forward and backward.
struct Fused {
  std::vector<Linear> linears;
  Quantized how;
  DType dtype = DType::bf16;  // of the products
  double dropout = 0.0;
  std::int64_t rows = 0;
};

Tensor small(Tape& tape, std::int64_t numel, DType dtype) {
  return tape.allocate(numel, dtype, "lora");
}

Tensor product(Tape& tape, const Fused& f, std::int64_t m, std::int64_t n, std::int64_t k,
               std::string_view name) {
  Tensor y = tape.allocate(checked_multiply(m, n), f.dtype, name);
  tape.gemm(name, f.dtype, m, n, k, 1, bytes_of(m * k + k * n + m * n, f.dtype));
  return y;
}

// fast_dequantize: nothing for a matrix that is held in full.
Tensor full_matrix(Tape& tape, const Fused& f, const Linear& l) {
  if (f.how.kind == facts::BaseQuantization::none) return {};
  return dequantized_matrix(tape, l.inputs, l.outputs, f.dtype, f.how);
}

// X.to(dtype) of an adapter matrix; the matrix itself when it has the type.
Tensor cast_small(Tape& tape, const Fused& f, const Tensor& matrix) {
  return matrix.dtype == f.dtype ? matrix : small(tape, matrix.numel, f.dtype);
}

// matmul_lora: the result, and the input behind the dropout.
std::pair<Tensor, Tensor> matmul_lora(Tape& tape, const Fused& f, const Linear& l,
                                      const Tensor& x) {
  Tensor out;
  {
    const Tensor matrix = full_matrix(tape, f, l);
    out = product(tape, f, f.rows, l.outputs, l.inputs, "mm");
  }
  Tensor dropped = x;
  if (f.dropout > 0.0) {
    dropped = tape.allocate(x.numel, x.dtype, "native_dropout");
    const Tensor mask = tape.allocate(x.numel, DType::boolean, "native_dropout");
    tape.pointwise("native_dropout", 2 * bytes_of(x) + bytes_of(mask));
  }
  const Tensor a = cast_small(tape, f, l.down);
  const Tensor low = product(tape, f, f.rows, l.rank, l.inputs, "lora_A");
  const Tensor b = cast_small(tape, f, l.up);
  const Tensor scaled = small(tape, l.up.numel, f.dtype);
  const Tensor high = product(tape, f, f.rows, l.outputs, l.rank, "lora_B");
  tape.pointwise("add", 3 * bytes_of(high));
  return {std::move(out), std::move(dropped)};
}

// d_A = x^T (dY B), d_B = (A x^T) dY, in the adapters' own type when they arrive at the leaves.
void adapter_gradients(Tape& t, const Fused& f, const Linear& l, Gradients& result) {
  Tensor a;
  {
    const Tensor low = product(t, f, f.rows, l.rank, l.outputs, "lora_gradient");
    a = product(t, f, l.inputs, l.rank, f.rows, "lora_gradient");
  }
  Tensor b;
  {
    const Tensor low = product(t, f, l.rank, f.rows, l.inputs, "lora_gradient");
    b = product(t, f, l.rank, l.outputs, f.rows, "lora_gradient");
  }
  const auto own_type = [&](Tensor gradient, const Tensor& leaf) {
    return leaf.dtype == f.dtype ? gradient : small(t, leaf.numel, leaf.dtype);
  };
  result.push_back(own_type(std::move(a), l.down));
  result.push_back(own_type(std::move(b), l.up));
}

// dX += (dropped != 0) * (dY B (s A))
void add_through_adapter(Tape& t, const Fused& f, const Linear& l) {
  const std::int64_t numel = checked_multiply(f.rows, l.inputs);
  const Tensor kept = t.allocate(numel, DType::boolean, "ne");
  const Tensor b = cast_small(t, f, l.up);
  const Tensor low = product(t, f, f.rows, l.rank, l.outputs, "lora_gradient");
  const Tensor a = cast_small(t, f, l.down);
  const Tensor scaled = small(t, l.down.numel, f.dtype);
  const Tensor wide = product(t, f, f.rows, l.inputs, l.rank, "lora_gradient");
  const Tensor masked = t.allocate(numel, f.dtype, "mul");
  t.pointwise("mul", 3 * bytes_of(masked) + bytes_of(kept));
}

// dX += dY W^T, besides the first, which is written where `into` says.
void add_through_matrix(Tape& t, const Fused& f, const Linear& l, bool writes) {
  const Tensor matrix = full_matrix(t, f, l);
  if (writes) {  // out = X
    t.gemm("mm_input_gradient", f.dtype, f.rows, l.inputs, l.outputs, 1,
           bytes_of(f.rows * (l.inputs + l.outputs), f.dtype));
    return;
  }
  const Tensor part = product(t, f, f.rows, l.inputs, l.outputs, "mm_input_gradient");
  t.pointwise("add", 3 * bytes_of(part));
}

Fused fused_of(Tape& tape, const OperatorCall& call, const std::vector<std::int64_t>& outputs) {
  Fused f;
  const Tensor& x = call.inputs[0];
  const std::int64_t inputs = call.input_shapes[0].back();
  f.how = call.quantization;
  f.dtype = tape.arithmetic().compute;
  f.dropout = call.op->adapter_dropout;
  f.rows = x.numel / inputs;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const Tensor& down = call.weights[kWeightsEach * i + 2];
    f.linears.push_back(
        {down, call.weights[kWeightsEach * i + 3], inputs, outputs[i], call.op->adapter_rank});
  }
  return f;
}

std::vector<Edge> edges_of(const Tensor& x, const Fused& f) {
  std::vector<Edge> edges = {Tape::edge_of(x)};
  for (const Linear& l : f.linears) {
    edges.push_back(Tape::edge_of(l.down));
    edges.push_back(Tape::edge_of(l.up));
  }
  return edges;
}

// LoRA_QKV and LoRA_W.
std::vector<Tensor> adapted_linears(Tape& tape, const OperatorCall& call) {
  const Tensor x = call.inputs[0];
  std::vector<std::int64_t> columns;
  for (const model::Shape& shape : call.output_shapes) columns.push_back(shape.back());
  const Fused f = fused_of(tape, call, columns);
  std::vector<StorageRef> saved = {x.storage};
  std::vector<Tensor> results;
  tape.begin_operation(OperationKind::other, {&x});
  for (const Linear& l : f.linears) {
    auto [out, dropped] = matmul_lora(tape, f, l, x);
    if (dropped.storage != x.storage) saved.push_back(dropped.storage);
    results.push_back(std::move(out));
  }
  const StorageRef kept = x.storage;
  const bool wants_x = x.requires_grad;
  const bool writes_over = f.linears.size() > 1 && x.dtype == f.dtype;
  const auto backward = [f, kept, wants_x, writes_over](Tape& t, const Gradients& gradients) {
    Gradients result(1);
    std::vector<Tensor> copies;  // dK.reshape: transposed
    if (gradients.size() > 1) copies.push_back(contiguous(t, gradients[1]));
    for (const Linear& l : f.linears) adapter_gradients(t, f, l, result);
    if (!wants_x) return result;
    const std::int64_t numel = checked_multiply(f.rows, f.linears.front().inputs);
    for (std::size_t i = 0; i < f.linears.size(); ++i) {
      if (i == 0 && !writes_over) {
        const Tensor matrix = full_matrix(t, f, f.linears[0]);
        result[0] =
            product(t, f, f.rows, f.linears[0].inputs, f.linears[0].outputs, "mm_input_gradient");
      } else {
        add_through_matrix(t, f, f.linears[i], i == 0);
      }
      add_through_adapter(t, f, f.linears[i]);
    }
    if (writes_over) result[0] = Tape::alias(kept, numel, f.dtype);
    return result;
  };
  if (!tape.grad_enabled()) return results;
  tape.track(results[0], "lora", edges_of(x, f), std::move(saved), backward);
  for (std::size_t i = 1; i < results.size(); ++i) {
    results[i].node = results[0].node;
    results[i].output = static_cast<int>(i);
    results[i].requires_grad = true;
  }
  return results;
}

// LoRA_MLP: gate, up, swiglu and down; saves e = gate(x) and g = up(x).
Tensor adapted_mlp(Tape& tape, const OperatorCall& call) {
  const Tensor x = call.inputs[0];
  const std::int64_t hidden = call.output_shapes[0].back();
  const std::int64_t wide = call.weights[kWeightsEach + 3].numel / call.op->adapter_rank;
  Fused f = fused_of(tape, call, {wide, wide, hidden});
  f.linears[2].inputs = wide;
  tape.begin_operation(OperationKind::other, {&x});
  auto [e, gate_x] = matmul_lora(tape, f, f.linears[0], x);
  auto [g, up_x] = matmul_lora(tape, f, f.linears[1], x);
  Tensor h = tape.allocate(e.numel, f.dtype, "fused_swiglu");
  tape.pointwise("fused_swiglu", 3 * bytes_of(h));
  auto [out, down_x] = matmul_lora(tape, f, f.linears[2], h);
  if (!tape.grad_enabled()) return out;
  std::vector<StorageRef> saved = {x.storage, e.storage, g.storage};
  if (f.dropout > 0.0) {
    for (const Tensor& dropped : {gate_x, up_x, down_x}) saved.push_back(dropped.storage);
  }
  const StorageRef kept = x.storage;
  const std::int64_t numel = x.numel;
  const bool wants_x = x.requires_grad;
  tape.track(out, "lora_mlp", edges_of(x, f), std::move(saved), [=](Tape& t, const Gradients&) {
    // DW = dY down^T with its adapter; e and g are written over in place.
    const Tensor dw = [&] {
      const Tensor mask = t.allocate(checked_multiply(f.rows, wide), DType::boolean, "ne");
      Linear back = f.linears[2];
      std::swap(back.inputs, back.outputs);
      Fused plain = f;
      plain.dropout = 0.0;
      return matmul_lora(t, plain, back, Tensor()).first;
    }();
    t.pointwise("fused_swiglu_backward", 6 * bytes_of(dw));
    Gradients result(1);
    for (const Linear& l : f.linears) adapter_gradients(t, f, l, result);
    if (!wants_x) return result;
    add_through_matrix(t, f, f.linears[1], true);
    add_through_adapter(t, f, f.linears[1]);
    add_through_matrix(t, f, f.linears[0], false);
    add_through_adapter(t, f, f.linears[0]);
    result[0] = Tape::alias(kept, numel, f.dtype);
    return result;
  });
  return out;
}

}  // namespace

void fuse_adapted_linears(model::Block& block) {
  fuse_mlp(block);
  fuse_projections(block);
  fuse_output(block);
}

std::vector<Tensor> run_fused_adapters(Tape& tape, const OperatorCall& call) {
  if (call.op->kind == OperatorKind::adapted_mlp) return {adapted_mlp(tape, call)};
  return adapted_linears(tape, call);
}

}  // namespace steelyard::step
