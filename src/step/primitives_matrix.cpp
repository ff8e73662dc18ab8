#include <algorithm>
#include <initializer_list>
#include <utility>

#include "step/primitives.h"
#include "step/primitives_fp8.h"
#include "step/primitives_image.h"

namespace steelyard::step {

Bytes added_traffic(const Tape& tape, std::int64_t numel, facts::DType made) {
  const std::optional<facts::DType> sum = tape.options().accumulates_into;
  if (!sum) return Bytes(0);
  return Bytes(numel * (2 * facts::bytes_of(*sum) - facts::bytes_of(made)));
}

namespace {

using Gradients = std::vector<Tensor>;

Bytes matrix_traffic(std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t batch,
                     DType dtype) {
  const std::int64_t numel = checked_add(
      checked_add(checked_multiply(m, k), checked_multiply(k, n)), checked_multiply(m, n));
  return bytes_of(checked_multiply(numel, batch), dtype);
}

}  // namespace

// Weights have no autograd node.
Tensor product_weight(Tape& tape, const Tensor& weight) {
  const bool cast = tape.arithmetic().autocast && weight.dtype != tape.arithmetic().compute;
  return cast ? tape.cast_weight(weight) : weight;
}

namespace {

Tensor gathered_again(Tape& tape, std::int64_t numel, DType dtype) {
  const std::string_view name = "all_gather_tokens";
  Tensor whole = tape.allocate(numel, dtype, name);
  tape.communicate(Collective::all_gather, name, bytes_of(whole), tape.options().tensor,
                   tape.options().async_tensor);
  return whole;
}

}  // namespace

Tensor linear(Tape& tape, const Tensor& x, const Tensor& weight, const Tensor& bias,
              std::int64_t inputs, std::int64_t outputs) {
  // Autocast casts the arguments from right to left: C++ leaves the order of evaluation open, and
  // GCC's is this one. F.linear hands the bias to addmm in the compute type.
  const Tensor b = bias ? product_weight(tape, bias) : Tensor();
  const Tensor w = product_weight(tape, weight);
  const Tensor a = to_compute(tape, x);
  const std::int64_t rows = a.numel / inputs;
  tape.begin_operation(b ? OperationKind::addmm : OperationKind::mm, {&a, &w, &b});
  Tensor y =
      tape.shaped(tape.allocate(checked_multiply(rows, outputs), a.dtype, "mm"), {rows, outputs});
  tape.gemm("mm", a.dtype, rows, outputs, inputs, 1,
            matrix_traffic(rows, outputs, inputs, 1, a.dtype));
  if (!tape.tracks({&a, &w}) && !(b && tape.tracks({&b}))) return y;

  std::vector<StorageRef> saved;
  if (w.requires_grad) saved.push_back(a.part ? a.part : a.storage);
  if (a.requires_grad) saved.push_back(w.storage);
  const bool gathers_again = a.part != nullptr;
  const bool wants_x = a.requires_grad;
  const bool wants_w = w.requires_grad;
  const bool has_bias = static_cast<bool>(b);
  const bool wants_b = has_bias && b.requires_grad;
  const bool gives_view = w.view || !tape.options().compiled;
  const std::int64_t weight_numel = w.numel;
  std::vector<Edge> edges = {Tape::edge_of(a), Tape::edge_of(w)};
  if (b) edges.push_back(Tape::validated_edge_of(b));
  tape.track(y, "mm", std::move(edges), std::move(saved), [=](Tape& t, const Gradients& gradients) {
    const DType dtype = gradients[0].dtype;
    Gradients result(3);
    const Bytes traffic = matrix_traffic(rows, outputs, inputs, 1, dtype);
    const auto weight_gradient = [&] {
      if (!wants_w) return;
      const Tensor input = gathers_again ? gathered_again(t, rows * inputs, dtype) : Tensor();
      result[1] =
          t.shaped(t.allocate(weight_numel, dtype, "mm_weight_gradient"), {outputs, inputs});
      result[1].view = gives_view;
      const Bytes added = added_traffic(t, weight_numel, dtype);
      t.gemm("mm_weight_gradient", dtype, outputs, inputs, rows, 1, traffic + added);
    };
    // The generated code goes by the arguments' names: mm has mat2 and self, addmm mat1, mat2,
    // self.
    if (!has_bias) weight_gradient();
    if (wants_x) {
      result[0] = t.shaped(t.allocate(rows * inputs, dtype, "mm_input_gradient"), {rows, inputs});
      t.gemm("mm_input_gradient", dtype, rows, inputs, outputs, 1, traffic);
    }
    if (has_bias) weight_gradient();
    if (wants_b) result[2] = gradients[0];  // summed over the rows by the engine
    if (!wants_b) result.resize(2);
    return result;
  });
  return y;
}

namespace {

// _unsafe_view to [B,n,S,d], whose gradient, transposed, is copied before the products read it.
Tensor copies_gradient(Tape& tape, Tensor y, const MatmulViews& views) {
  const bool copies = views.result_transposed && !views.one_sample && !tape.options().compiled;
  if (!copies) return y;
  Tensor viewed = y;
  tape.track(viewed, "reshape", {Tape::edge_of(y)}, {}, [](Tape& t, const Gradients& gradients) {
    Tensor dense = t.allocate(gradients[0].numel, gradients[0].dtype, "clone");
    t.pointwise("clone", 2 * bytes_of(dense));
    return Gradients{dense};
  });
  return viewed;
}

}  // namespace

Tensor matmul(Tape& tape, Tensor first, Tensor second, std::int64_t batch, std::int64_t m,
              std::int64_t n, std::int64_t k, MatmulViews views) {
  // expand().reshape() to three dimensions copies transposed views (LinearAlgebra.cpp,
  // _matmul_impl).
  second = to_compute(tape, std::move(second));
  first = to_compute(tape, std::move(first));
  Tensor a = contiguous(tape, std::move(first));
  Tensor b = contiguous(tape, std::move(second));
  tape.begin_operation(OperationKind::bmm, {&a, &b});
  Tensor y =
      tape.shaped(tape.allocate(checked_multiply(batch, checked_multiply(m, n)), a.dtype, "bmm"),
                  {batch, m, n});
  tape.gemm("bmm", a.dtype, m, n, k, batch, matrix_traffic(m, n, k, batch, a.dtype));
  if (!tape.tracks({&a, &b})) return y;
  std::vector<StorageRef> saved;
  if (b.requires_grad) saved.push_back(a.storage);
  if (a.requires_grad) saved.push_back(b.storage);
  const bool wants_a = a.requires_grad;
  const bool wants_b = b.requires_grad;
  const std::int64_t numel_a = a.numel;
  const std::int64_t numel_b = b.numel;
  tape.track(y, "bmm", {Tape::edge_of(a), Tape::edge_of(b)}, std::move(saved),
             [=](Tape& t, const Gradients& gradients) {
               const DType dtype = gradients[0].dtype;
               Gradients result(2);
               const Bytes traffic = matrix_traffic(m, n, k, batch, dtype);
               if (wants_b) {
                 result[1] = t.shaped(t.allocate(numel_b, dtype, "bmm_gradient"), {batch, k, n});
                 result[1].dense = !views.second_transposed;
                 t.gemm("bmm_gradient", dtype, k, n, m, batch, traffic);
               }
               if (wants_a) {
                 result[0] = t.shaped(t.allocate(numel_a, dtype, "bmm_gradient"), {batch, m, k});
                 t.gemm("bmm_gradient", dtype, m, k, n, batch, traffic);
               }
               return result;
             });
  return copies_gradient(tape, std::move(y), views);
}

Tensor embedding(Tape& tape, const Tensor& ids, const Tensor& table, std::int64_t hidden) {
  const std::int64_t tokens = ids.numel;
  tape.begin_operation(OperationKind::pointwise, {&ids, &table});
  Tensor y = tape.shaped(tape.allocate(checked_multiply(tokens, hidden), table.dtype, "embedding"),
                         {tokens, hidden});
  tape.pointwise("embedding", bytes_of(ids) + 2 * bytes_of(y));
  if (!tape.tracks({&table})) return y;
  const std::int64_t numel = table.numel;
  tape.track(y, "embedding", {Tape::edge_of(table)}, {ids.storage},
             [numel, hidden, tokens](Tape& t, const Gradients& gradients) {
               const Tensor& dy = gradients[0];
               Tensor dw = t.shaped(t.allocate(numel, dy.dtype, "embedding_dense_backward"),
                                    {numel / hidden, hidden});
               Tensor sort;
               Tensor partial;
               // EmbeddingBackwardKernel.cu: above 3072 tokens ids are sorted and partial sums kept
               // in fp32.
               if (t.options().kernel_temporaries && tokens > 3072) {
                 sort = t.allocate(3 * tokens, DType::int64, "embedding_dense_backward");
                 const std::int64_t rows = tokens / 10 + std::min(tokens, numel / hidden);
                 partial = t.allocate(rows * hidden, DType::fp32, "embedding_dense_backward");
               }
               t.pointwise("embedding_dense_backward", bytes_of(dy) + 2 * bytes_of(dw));
               return Gradients{dw};
             });
  return y;
}

std::vector<Tensor> attention_workspace(Tape& t, const AttentionDims& d, bool efficient,
                                        DType dtype) {
  std::vector<Tensor> held;
  if (!t.options().kernel_temporaries) return held;
  const std::int64_t rows = d.samples * d.heads;
  const std::string_view name = "attention_backward_workspace";
  if (efficient) {
    held.push_back(t.allocate(rows * d.queries, DType::fp32, name));
    held.push_back(t.allocate(rows * round_up(d.queries, 64) * d.head_dim, DType::fp32, name));
    return held;
  }
  held.push_back(t.allocate(rows * round_up(d.queries, 128), DType::fp32, name));
  held.push_back(
      t.allocate(rows * round_up(d.queries, 128) * round_up(d.head_dim, 32), DType::fp32, name));
  if (d.heads != d.kv_heads) {
    held.push_back(t.allocate(rows * d.keys * d.head_dim, dtype, name));
    held.push_back(t.allocate(rows * d.keys * d.values(), dtype, name));
  }
  return held;
}

namespace {

// attention.cu, pad_bias: rows of a mask that end off a multiple of 16 elements are copied.
constexpr std::int64_t kBiasAlignment = 16;

Tensor aligned_bias(Tape& tape, Tensor bias, const AttentionDims& dims) {
  if (!bias) return bias;
  Tensor b = to_compute(tape, std::move(bias));
  const std::int64_t columns = round_up(dims.keys, kBiasAlignment);
  if (columns == dims.keys) return b;
  const Tensor padded = pad(tape, std::move(b), dims.heads * dims.queries * columns);
  return slice(tape, padded, dims.heads * dims.queries * dims.keys);
}

// attention_backward.cu: the gradient of the mask as each sample reads it, its rows aligned.
Tensor bias_gradient(Tape& t, const AttentionDims& dims, DType dtype) {
  const std::int64_t rows = dims.samples * dims.heads * dims.queries;
  return t.allocate(rows * round_up(dims.keys, kBiasAlignment), dtype, "attention_gradient");
}

// What attention keeps of q, k and v: themselves, or the casts in both layouts that its products in
// fp8 read (Transformer Engine, FusedAttnFunc: fp8_tensors).
struct Operands {
  std::vector<StorageRef> kept;
  DType multiplied = DType::bf16;
  bool cast = false;
};

Operands operands_of(Tape& tape, std::initializer_list<const Tensor*> tensors,
                     const AttentionDims& dims, bool efficient) {
  const Fp8& fp8 = tape.arithmetic().fp8;
  Operands operands;
  operands.cast = fp8.attention && !efficient;
  operands.multiplied = operands.cast ? DType::fp8 : (*tensors.begin())->dtype;
  for (const Tensor* tensor : tensors) {
    if (!operands.cast) {
      operands.kept.push_back(tensor->storage);
      continue;
    }
    const EngineCasts casts = engine_casts(tape, *tensor, dims.head_dim);
    operands.kept.push_back(casts.rows.storage);
    if (casts.columns) operands.kept.push_back(casts.columns.storage);
  }
  return operands;
}

}  // namespace

Tensor fused_attention(Tape& tape, Tensor query, Tensor key, Tensor value,
                       const AttentionDims& dims, bool efficient, Tensor mask) {
  const Tensor bias = aligned_bias(tape, std::move(mask), dims);
  const Tensor v = to_compute(tape, std::move(value));
  const Tensor k = to_compute(tape, std::move(key));
  const Tensor q = to_compute(tape, std::move(query));
  const std::string_view name = efficient ? "efficient_attention" : "flash_attention";
  Operands operands = operands_of(tape, {&q, &k, &v}, dims, efficient);
  const DType multiplied = operands.multiplied;
  tape.begin_operation(OperationKind::attention, {&q, &k, &v});
  // The result lies in memory as [B,S,nh,d], whatever its shape says: transposing back is free.
  Tensor y = tape.shaped(tape.allocate(q.numel / dims.head_dim * dims.values(), q.dtype, name),
                         {dims.samples, dims.queries, dims.heads, dims.values()});
  const std::int64_t statistics =
      dims.samples * dims.heads * (efficient ? round_up(dims.queries, 32) : dims.queries);
  const Tensor logsumexp =
      tape.shaped(tape.allocate(statistics, DType::fp32, name),
                  {dims.samples, dims.heads, statistics / (dims.samples * dims.heads)});
  const Tensor seed = tape.allocate(1, DType::int64, name);
  const Tensor offset = tape.allocate(1, DType::int64, name);
  const double scores = static_cast<double>(dims.samples * dims.heads) *
                        static_cast<double>(dims.queries) * static_cast<double>(dims.keys) *
                        dims.computed_share;
  const Flops along_key(2.0 * scores * static_cast<double>(dims.head_dim));
  const Flops along_value(2.0 * scores * static_cast<double>(dims.values()));
  const Bytes traffic = bytes_of(q) + bytes_of(k) + bytes_of(v) + bytes_of(y);
  tape.attention(name, multiplied, along_key + along_value, traffic, dims.head_dim);
  if (!tape.tracks({&q, &k, &v})) return y;
  const std::int64_t numels[3] = {q.numel, k.numel, v.numel};
  std::vector<Edge> edges = {Tape::edge_of(q), Tape::edge_of(k), Tape::edge_of(v)};
  const bool cast = operands.cast;
  std::vector<StorageRef> saved = std::move(operands.kept);
  saved.insert(saved.end(), {y.storage, logsumexp.storage, seed.storage, offset.storage});
  const bool learns = bias && bias.requires_grad;
  if (bias) saved.push_back(bias.storage);
  if (learns) edges.push_back(Tape::validated_edge_of(bias));
  tape.track(y, name, std::move(edges), std::move(saved), [=](Tape& t, const Gradients& gradients) {
    const DType dtype = gradients[0].dtype;
    Gradients result;
    for (std::int64_t numel : numels) {
      result.push_back(view(t.allocate(numel, dtype, "attention_gradient"), false));
    }
    if (learns) result.push_back(bias_gradient(t, dims, dtype));
    EngineCasts gradient;
    if (cast) gradient = engine_casts(t, gradients[0], dims.values());
    const std::vector<Tensor> held = attention_workspace(t, dims, efficient, dtype);
    // Five products instead of two: the scores are computed again. In fp8 windows are not skipped
    // (NVIDIA/cudnn-frontend 3929da2, benchmark/sdpa_benchmark_training/results/gpt_oss).
    const double more = cast ? dims.whole_share / dims.computed_share : 1.0;
    t.attention(efficient ? "efficient_attention_gradient" : "attention_gradient",
                cast ? DType::fp8 : dtype, (3.0 * along_key + 2.0 * along_value) * more,
                2 * traffic, dims.head_dim);
    return result;
  });
  return y;
}

}  // namespace steelyard::step
