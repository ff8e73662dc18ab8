// RelPartialLearnableMultiHeadAttn.forward (NVIDIA/DeepLearningExamples, Transformer-XL,
// pytorch/mem_transformer.py): tokens lie [S,B,H], so that [S,B,n*d] is [B*n] matrices without a
// copy; keys and values are chunks of a wider tensor and are copied by the batched product.
#include "step/recurrent_attention.h"

#include <utility>
#include <vector>

#include "step/primitives.h"

namespace steelyard::step {

namespace {

struct Dims {
  std::int64_t batch, queries, keys, heads, head_dim, hidden;
  [[nodiscard]] std::int64_t inner() const { return heads * head_dim; }
};

Dims dims_of(const OperatorCall& call) {
  const model::Shape& stream = call.input_shapes[0];
  return {.batch = stream.at(0),
          .queries = stream.at(1),
          .keys = call.input_shapes[2].at(0),
          .heads = call.op->attention.heads,
          .head_dim = call.op->attention.head_dim,
          .hidden = stream.at(2)};
}

// _rel_shift: a column of zeros before the scores, seen with one row more, without the first row.
Tensor shifted(Tape& tape, Tensor scores, const Dims& dims) {
  const std::int64_t rows = dims.batch * dims.heads * dims.queries;
  const std::int64_t numel = scores.numel;
  const Tensor zeros = tape.allocate(rows, scores.dtype, "zeros");
  const Tensor padded = cat(tape, zeros, std::move(scores));
  return slice(tape, padded, numel);
}

// alpha * (a + b) as one scripted kernel, then masked_fill_.
Tensor scores_of(Tape& tape, const OperatorCall& call, Tensor q, Tensor k, Tensor distances,
                 const Dims& dims) {
  const bool one = dims.batch == 1;
  Tensor content = add(tape, q, call.weights[2]);
  content = matmul(tape, std::move(content), std::move(k), dims.batch * dims.heads, dims.queries,
                   dims.keys, dims.head_dim, {.second_transposed = true, .one_sample = one});
  Tensor by_distance = add(tape, std::move(q), call.weights[3]);
  by_distance.dense = one;  // heads first, then samples: copied
  by_distance = matmul(tape, std::move(by_distance), std::move(distances), dims.heads,
                       dims.batch * dims.queries, dims.keys, dims.head_dim,
                       {.second_transposed = true, .result_transposed = true, .one_sample = one});
  by_distance = shifted(tape, std::move(by_distance), dims);
  return add(tape, std::move(content), std::move(by_distance));
}

}  // namespace

Tensor recurrent_attention(Tape& tape, const OperatorCall& call) {
  const Dims dims = dims_of(call);
  const Tensor joined = cat(tape, call.inputs[1], call.inputs[0]);
  const Tensor heads =
      linear(tape, joined, call.weights[0], Tensor(), dims.hidden, 3 * dims.inner());
  Tensor distances =
      linear(tape, call.inputs[2], call.weights[1], Tensor(), dims.hidden, dims.inner());
  const std::int64_t part = heads.numel / 3;
  std::vector<Tensor> parts = split(tape, heads, {part, part, part});
  for (Tensor& each : parts) each.extent = {{part / dims.inner(), dims.inner()}, 2};
  Tensor q = slice(tape, parts[0], dims.batch * dims.queries * dims.inner());
  Tensor scores =
      scores_of(tape, call, std::move(q), std::move(parts[1]), std::move(distances), dims);
  const DType wide = tape.arithmetic().autocast ? DType::fp32 : scores.dtype;
  Tensor weights = softmax(tape, std::move(scores), wide, dims.keys);
  weights =
      dropout(tape, std::move(weights), call.variants->dropout ? call.op->attention.dropout : 0.0);
  Tensor y =
      matmul(tape, std::move(weights), std::move(parts[2]), dims.batch * dims.heads, dims.queries,
             dims.head_dim, dims.keys, {.result_transposed = true, .one_sample = dims.batch == 1});
  return contiguous(tape, view(std::move(y), false));
}

}  // namespace steelyard::step
