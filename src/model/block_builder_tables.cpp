// Operators of recommendation networks.
#include <utility>

#include "model/block_builder.h"

namespace steelyard::model {

std::vector<TensorRef> BlockBuilder::embedding_tables(const std::string& name, TensorRef ids,
                                                      const std::vector<std::int64_t>& rows,
                                                      std::int64_t width,
                                                      const std::vector<std::int64_t>& pooling,
                                                      bool sparse) {
  const std::int64_t samples = shape(ids).front();
  Operator& op = append(OperatorKind::embedding_tables, name, {ids});
  op.pooling = pooling;
  op.sparse_gradients = sparse;
  std::vector<TensorRef> outputs;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::string table = name + "." + std::to_string(i);
    op.weights.push_back(weight(table + ".weight", {rows[i], width}, WeightRole::embedding));
    if (sparse) {
      block_.weights.back().touched =
          checked_multiply(samples, checked_multiply(pooling[i], width));
    }
    outputs.push_back(tensor(table, {samples, width}));
  }
  op.outputs = outputs;
  return outputs;
}

TensorRef BlockBuilder::join_features(const std::string& name, std::vector<TensorRef> parts) {
  Shape out = shape(parts.front());
  out.back() = 0;
  for (const TensorRef part : parts) out.back() = checked_add(out.back(), width(part));
  Operator& op = append(OperatorKind::join_features, name, std::move(parts));
  op.outputs = {tensor(name, std::move(out))};
  return op.outputs.front();
}

TensorRef BlockBuilder::pairwise_products(const std::string& name, TensorRef in,
                                          std::int64_t vectors) {
  const std::int64_t samples = shape(in).front();
  Operator& op = append(OperatorKind::pairwise_products, name, {in});
  op.groups = vectors;
  op.outputs = {tensor(name, {samples, vectors * (vectors - 1) / 2})};
  return op.outputs.front();
}

}  // namespace steelyard::model
