// transformers: modeling_deberta_v2.py. Heads and samples are one dimension of batched products;
// products with the distances are gathered by the distance of each pair, of which both the whole
// product and the pairs' indices wait for backward.
#include "step/disentangled_attention.h"

#include <utility>
#include <vector>

#include "step/primitives.h"
#include "step/primitives_image.h"

namespace steelyard::step {

namespace {

struct Dims {
  std::int64_t samples, heads, tokens, head_dim;
  [[nodiscard]] std::int64_t batch() const { return checked_multiply(samples, heads); }
  [[nodiscard]] std::int64_t pairs() const { return checked_multiply(tokens, tokens); }
};

// One side's scores by distance: [B*n,S,d] times [B*n,2A,d], taken by each pair's distance.
Tensor by_distance(Tape& tape, const Dims& dims, const Tensor& x, const Tensor& distances) {
  const std::int64_t span = distances.numel / (dims.heads * dims.head_dim);
  Tensor rows = contiguous(tape, view(distances, false));
  rows = repeat(tape, std::move(rows), dims.samples);
  rows.dense = true;
  Tensor scores = matmul(tape, x, std::move(rows), dims.batch(), dims.tokens, span, dims.head_dim,
                         {.second_transposed = true, .one_sample = true});
  Tensor indices;
  {
    const Tensor sum = tape.allocate(dims.pairs(), DType::int64, "add");
    indices = tape.allocate(dims.pairs(), DType::int64, "clamp");
    tape.pointwise("clamp", 4 * bytes_of(indices));
  }
  const std::int64_t numel = checked_multiply(dims.batch(), dims.pairs());
  Tensor taken = gather(tape, std::exchange(scores, Tensor()), indices, numel);
  return mul_constant(tape, std::move(taken));  // / scale
}

}  // namespace

Tensor disentangled_attention(Tape& tape, const OperatorCall& call) {
  const model::Shape& shape = call.input_shapes[0];  // [B,n,S,d]
  const Dims dims{shape.at(0), shape.at(1), shape.at(2), shape.at(3)};
  // transpose_for_scores: permute(0, 2, 1, 3).contiguous()
  const Tensor q = contiguous(tape, view(call.inputs[0], false));
  const Tensor k = contiguous(tape, view(call.inputs[1], false));
  const Tensor v = contiguous(tape, view(call.inputs[2], false));
  Tensor scaled = mul_constant(tape, k);  // key.transpose(-1, -2) / scale
  Tensor scores = matmul(tape, q, std::move(scaled), dims.batch(), dims.tokens, dims.tokens,
                         dims.head_dim, {.second_transposed = true, .one_sample = true});
  Tensor distances;
  for (std::size_t i = 3; i < call.inputs.size(); ++i) {
    // c2p reads the queries and comes first; p2c, with queries of the distances, the keys.
    Tensor part = by_distance(tape, dims, i == 3 ? q : k, call.inputs[i]);
    distances = distances ? add_in_place(tape, std::move(distances), std::move(part))
                          : add_constant(tape, std::move(part));
  }
  if (distances) scores = add(tape, std::move(scores), std::move(distances));
  {
    const Tensor allowed =
        tape.allocate(checked_multiply(dims.samples, dims.pairs()), DType::boolean, "bool");
    const Tensor masked = tape.allocate(allowed.numel, DType::boolean, "bitwise_not");
    tape.pointwise("bitwise_not", 2 * bytes_of(masked));
    scores = where(tape, masked, std::move(scores));  // masked_fill
  }
  const DType type = tape.arithmetic().autocast ? DType::fp32 : scores.dtype;
  Tensor weights = softmax(tape, std::move(scores), type, dims.tokens);
  const double p = call.variants->dropout ? call.op->attention.dropout : 0.0;
  weights = dropout(tape, std::move(weights), p);
  Tensor y = matmul(tape, std::move(weights), v, dims.batch(), dims.tokens, dims.head_dim,
                    dims.tokens, {.result_transposed = true, .one_sample = dims.samples == 1});
  return contiguous(tape, view(std::move(y), false));
}

}  // namespace steelyard::step
