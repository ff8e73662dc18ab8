#include "model/generation.h"

#include <algorithm>
#include <string>
#include <utility>

namespace steelyard::model {

namespace {

bool reads_past(const Operator& op) {
  return op.kind == OperatorKind::attention && op.attention.causal && op.inputs.size() >= 3;
}

Operator joined(Block& block, const Operator& attention, std::size_t input, std::int64_t tokens) {
  const TensorRef one = attention.inputs[input];
  Shape shape = block.tensors[static_cast<std::size_t>(one.index)].shape;
  shape.at(2) = tokens;
  Operator op;
  op.kind = OperatorKind::cached;
  op.name = attention.name + (input == 1 ? ".keys" : ".values");
  op.inputs = {one};
  block.tensors.push_back({op.name, std::move(shape)});
  op.outputs = {{false, static_cast<std::int32_t>(block.tensors.size()) - 1}};
  return op;
}

std::int64_t span_of(const AttentionShape& attention) {
  if (attention.window > 0 && attention.chunk > 0) {
    return std::min(attention.window, attention.chunk);
  }
  return attention.window > 0 ? attention.window : attention.chunk;
}

void add_past(Block& block, std::int64_t tokens) {
  std::vector<Operator> operators;
  for (Operator& op : block.operators) {
    if (reads_past(op)) {
      const std::int64_t span = span_of(op.attention);
      const std::int64_t read = span > 0 ? std::min(span, tokens) : tokens;
      for (const std::size_t input : {std::size_t{1}, std::size_t{2}}) {
        Operator join = joined(block, op, input, read);
        op.inputs[input] = join.outputs[0];
        operators.push_back(std::move(join));
      }
      op.attention.causal = false;  // the last token reads all
      op.attention.window = op.attention.chunk = 0;
    }
    operators.push_back(std::move(op));
  }
  block.operators = std::move(operators);
}

void sample(Block& head) {
  for (const OperatorKind kind : {OperatorKind::widen, OperatorKind::softmax}) {
    Operator op;
    op.kind = kind;
    op.name = kind == OperatorKind::widen ? "next_token_scores" : "probabilities";
    op.inputs = {head.output};
    const Shape shape = head.tensors[static_cast<std::size_t>(head.output.index)].shape;
    head.tensors.push_back({op.name, shape});
    op.outputs = {{false, static_cast<std::int32_t>(head.tensors.size()) - 1}};
    head.output = op.outputs[0];
    head.operators.push_back(std::move(op));
  }
}

}  // namespace

std::vector<LayerCache> caches_of(const Block& block) {
  std::vector<LayerCache> caches;
  for (const Operator& op : block.operators) {
    if (!reads_past(op)) continue;
    const auto of_token = [&](std::size_t input) {
      const Shape& shape =
          block.tensors[static_cast<std::size_t>(op.inputs[input].index)].shape;  // [B,n,S,d]
      return shape.at(1) * shape.at(3);
    };
    caches.push_back({of_token(1), of_token(2), span_of(op.attention)});
  }
  return caches;
}

Graph with_past(Graph graph, std::int64_t tokens) {
  for (Segment& segment : graph.segments) {
    for (Block& block : segment.blocks) add_past(block, tokens);
  }
  sample(graph.segments.back().blocks.back());
  return graph;
}

}  // namespace steelyard::model
