#include "step/operators_tables.h"

#include <utility>

#include "step/primitives.h"
#include "step/primitives_image.h"

namespace steelyard::step {

namespace {

using model::OperatorKind;
using Gradients = std::vector<Tensor>;

// nn.EmbeddingBag(mode="sum"): one vector per bag. aten/src/ATen/native/cuda/EmbeddingBag.cu makes,
// beside the result, the bag of each id and the size of each bag, which backward reads. The
// gradient of a sparse table is a row for each id that was read
// (native/EmbeddingBag.cpp, _embedding_bag_sparse_backward: index_select of the bags' gradients);
// its indices are the ids themselves. A dense one is as large as the table.
Tensor embedding_bag(Tape& tape, const Tensor& ids, const Tensor& table, std::int64_t bags,
                     std::int64_t pooling, std::int64_t width, bool sparse) {
  const std::int64_t read = checked_multiply(bags, pooling);
  tape.begin_operation(OperationKind::other, {&table});
  Tensor y = tape.shaped(tape.allocate(checked_multiply(bags, width), table.dtype, "embedding_bag"),
                         {bags, width});
  const Tensor bag_of = tape.allocate(read, DType::int64, "offset2bag");
  const Tensor sizes = tape.allocate(bags, DType::int64, "bag_size");
  // Rows of a table that lies on the host do not come from the GPU's memory (host_rows.h).
  const bool here = table.numel > 0;
  const Bytes rows = here ? bytes_of(checked_multiply(read, width), table.dtype) : Bytes();
  tape.pointwise("embedding_bag", rows + bytes_of(y) + 2 * bytes_of(bag_of));
  if (!tape.tracks({&table})) return y;
  const std::int64_t numel = table.numel;
  tape.track(y, "embedding_bag", {Tape::edge_of(table)},
             {ids.storage, bag_of.storage, sizes.storage},
             [=](Tape& t, const Gradients& gradients) {
               const Tensor& dy = gradients[0];
               const std::int64_t graded = sparse ? checked_multiply(read, width) : numel;
               Tensor dw = t.shaped(t.allocate(graded, dy.dtype, "embedding_bag_backward"),
                                    {graded / width, width});
               t.pointwise("embedding_bag_backward",
                           bytes_of(dy) + bytes_of(dw) + (sparse ? Bytes() : bytes_of(dw)));
               return Gradients{dw};
             });
  return y;
}

std::vector<Tensor> embedding_tables(Tape& tape, const OperatorCall& call) {
  std::vector<Tensor> vectors;
  for (std::size_t i = 0; i < call.output_shapes.size(); ++i) {
    const model::Shape& shape = call.output_shapes[i];
    vectors.push_back(embedding_bag(tape, call.inputs[0], call.weights[i], shape.front(),
                                    call.op->pooling[i], shape.back(), call.op->sparse_gradients));
  }
  return vectors;
}

// The vectors of all samples of all ranks, of the tables that this rank holds, become those of its
// own samples, of all tables (torchrec/distributed/dist_data.py, PooledEmbeddingsAllToAll;
// row-wise: PooledEmbeddingsReduceScatter).
Tensor exchange_tables(Tape& tape, const OperatorCall& call) {
  Tensor sent = cat(tape, call.inputs);
  const std::int64_t numel = model::elements(call.output_shapes[0]);
  const Collective kind = call.op->sums_parts ? Collective::reduce_scatter : Collective::all_to_all;
  const std::string_view name =
      call.op->sums_parts ? "reduce_scatter_embeddings" : "all_to_all_embeddings";
  const Collective back = call.op->sums_parts ? Collective::all_gather : Collective::all_to_all;
  tape.begin_operation(OperationKind::other, {&sent});
  Tensor y = tape.allocate(numel, sent.dtype, name);
  tape.communicate(kind, name, bytes_of(sent), tape.options().replicas, false);
  if (!tape.tracks({&sent})) return y;
  const std::int64_t before = sent.numel;
  const Edge edge = Tape::edge_of(sent);
  sent = Tensor();
  tape.track(y, name, {edge}, {}, [=](Tape& t, const Gradients& gradients) {
    Tensor dx = t.allocate(before, gradients[0].dtype, name);
    t.communicate(back, name, bytes_of(dx), t.options().replicas, false);
    return Gradients{dx};
  });
  return y;
}

// T = cat([x] + ly).view(B, -1, D); Z = bmm(T, T.transpose(1, 2)); Zflat = Z[:, li, lj]
Tensor pairwise_products(Tape& tape, const OperatorCall& call) {
  const std::int64_t vectors = call.op->groups;
  const std::int64_t samples = call.input_shapes[0].front();
  const std::int64_t width = call.input_shapes[0].back() / vectors;
  const Tensor& x = call.inputs[0];
  Tensor products =
      matmul(tape, x, x, samples, vectors, vectors, width, {.second_transposed = true});
  const std::int64_t pairs = model::elements(call.output_shapes[0]);
  const Tensor rows = tape.allocate(pairs / samples, DType::int64, "li");
  const Tensor columns = tape.allocate(pairs / samples, DType::int64, "lj");
  return index(tape, products, {rows, columns}, pairs);
}

// nn.BCEWithLogitsLoss (native/Loss.cpp): a loss per sample, then its mean; both inputs are saved.
Tensor binary_loss(Tape& tape, const OperatorCall& call) {
  const Tensor logits = to_fp32_if_autocast(tape, call.inputs[0]);
  const Tensor labels = call.inputs[1];
  tape.begin_operation(OperationKind::reduction, {&logits, &labels});
  Tensor loss;
  {
    const Tensor each = tape.allocate(logits.numel, logits.dtype, "binary_cross_entropy");
    loss = tape.allocate(1, logits.dtype, "mean");
    tape.pointwise("binary_cross_entropy",
                   bytes_of(logits) + bytes_of(labels) + 2 * bytes_of(each));
  }
  if (!tape.tracks({&logits})) return loss;
  const std::int64_t numel = logits.numel;
  const DType dtype = logits.dtype;
  tape.track(loss, "binary_cross_entropy", {Tape::edge_of(logits)},
             {logits.storage, labels.storage}, [numel, dtype](Tape& t, const Gradients&) {
               Tensor dx = t.allocate(numel, dtype, "binary_cross_entropy_backward");
               t.pointwise("binary_cross_entropy_backward", 3 * bytes_of(dx));
               return Gradients{dx};
             });
  return loss;
}

}  // namespace

std::vector<Tensor> run_table_operator(Tape& tape, const OperatorCall& call) {
  switch (call.op->kind) {
    case OperatorKind::embedding_tables: return embedding_tables(tape, call);
    case OperatorKind::exchange_tables: return {exchange_tables(tape, call)};
    case OperatorKind::join_features: return {cat(tape, call.inputs)};
    case OperatorKind::pairwise_products: return {pairwise_products(tape, call)};
    case OperatorKind::binary_loss: return {binary_loss(tape, call), call.inputs[0]};
    default: return {};
  }
}

}  // namespace steelyard::step
