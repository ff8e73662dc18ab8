#include "model/task_head.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace steelyard::model {

namespace {

TensorRef add_tensor(Block& block, std::string name, Shape shape) {
  block.tensors.push_back({std::move(name), std::move(shape)});
  return {false, static_cast<std::int32_t>(block.tensors.size()) - 1};
}

Operator& append(Block& block, OperatorKind kind, const std::string& name, TensorRef in,
                 Shape shape) {
  Operator op;
  op.kind = kind;
  op.name = name;
  op.inputs = {in};
  op.outputs = {add_tensor(block, name, std::move(shape))};
  block.operators.push_back(std::move(op));
  block.output = block.operators.back().outputs[0];
  return block.operators.back();
}

Shape& shape_of(Block& block, TensorRef ref) {
  return block.tensors[static_cast<std::size_t>(ref.index)].shape;
}

// The output projection: the last linear of the head.
std::size_t projection_of(const Block& head) {
  for (std::size_t i = head.operators.size(); i > 0; --i) {
    if (head.operators[i - 1].kind == OperatorKind::linear) return i - 1;
  }
  return head.operators.size();
}

// What nothing reads any more: the others keep their order.
void drop_weights(Block& block, const std::vector<std::int32_t>& gone) {
  std::vector<std::int32_t> moved(block.weights.size(), -1);
  std::vector<Weight> kept;
  for (std::size_t i = 0; i < block.weights.size(); ++i) {
    const auto index = static_cast<std::int32_t>(i);
    if (std::find(gone.begin(), gone.end(), index) != gone.end()) continue;
    moved[i] = static_cast<std::int32_t>(kept.size());
    kept.push_back(std::move(block.weights[i]));
  }
  block.weights = std::move(kept);
  for (Operator& op : block.operators) {
    for (std::int32_t& weight : op.weights) {
      if (weight >= 0) weight = moved[static_cast<std::size_t>(weight)];
    }
  }
}

// The projection and all behind it make way for a linear of one output.
void score(Block& head, std::size_t projection) {
  const TensorRef hidden = head.operators[projection].inputs[0];
  const std::vector<std::int32_t> gone = head.operators[projection].weights;
  head.operators.erase(head.operators.begin() + static_cast<std::ptrdiff_t>(projection),
                       head.operators.end());
  drop_weights(head, gone);
  Shape shape = hidden.shared ? Shape() : shape_of(head, hidden);
  const std::int64_t width = shape.back();
  shape.back() = 1;
  Weight matrix;
  matrix.name = "score.weight";
  matrix.shape = {1, width};
  head.weights.push_back(std::move(matrix));
  Operator& linear = append(head, OperatorKind::linear, "score", hidden, std::move(shape));
  linear.weights = {static_cast<std::int32_t>(head.weights.size()) - 1};
  // One output is not divided (verl/models/mcore, LinearForLastLayer; no entry in any tp_plan).
  linear.replicated = true;
}

// hidden_states[:, -keeps:, :] before the projection; what is behind it is as much shorter.
void keep_last(Block& head, std::size_t projection, std::int64_t keeps) {
  const TensorRef hidden = head.operators[projection].inputs[0];
  Shape shape = shape_of(head, hidden);
  const std::int64_t tokens = shape.at(1);
  if (keeps == 0 || keeps >= tokens) return;
  shape[1] = keeps;
  Operator slice;
  slice.kind = OperatorKind::slice;
  slice.name = "logits_to_keep";
  slice.inputs = {hidden};
  slice.outputs = {add_tensor(head, slice.name, std::move(shape))};
  head.operators[projection].inputs[0] = slice.outputs[0];
  for (std::size_t i = projection; i < head.operators.size(); ++i) {
    for (const TensorRef out : head.operators[i].outputs) {
      if (!out.shared && shape_of(head, out).size() == 3) shape_of(head, out)[1] = keeps;
    }
  }
  head.operators.insert(head.operators.begin() + static_cast<std::ptrdiff_t>(projection),
                        std::move(slice));
}

}  // namespace

Result<Graph> with_task_head(Graph graph, const TaskHeadOptions& options) {
  Block& head = graph.segments.back().blocks.back();
  const std::size_t projection = projection_of(head);
  const bool scores = options.head == TaskHead::scores || options.head == TaskHead::scores_loss;
  // A class that scores has no output projection, but a reward model's place.
  const bool scored =
      scores && projection < head.operators.size() && head.operators[projection].name == "score";
  const bool decoder = !head.operators.empty() && projection < head.operators.size() &&
                       (scored || head.operators.back().kind == OperatorKind::causal_lm_loss) &&
                       graph.decoder_sequence == 0 && graph.images == 0 &&
                       !head.operators[projection].inputs[0].shared;
  if (!decoder) {
    return fail({ErrorCode::not_supported,
                 "train.objective",
                 graph.model_type,
                 "a decoder that reads text, with its output projection",
                 "preference and reinforcement learning are built for language models",
                 "",
                 {}});
  }
  if (scores) {
    score(head, projection);
    if (options.head == TaskHead::scores_loss) {
      append(head, OperatorKind::alignment_loss, "loss", head.output, {});
    }
    return graph;
  }
  keep_last(head, projection, options.keeps);
  const TensorRef logits = head.operators.back().inputs[0];
  head.operators.pop_back();
  head.output = logits;
  if (options.head == TaskHead::logits) return graph;
  Shape rows = shape_of(head, logits);
  rows.pop_back();
  Operator& taken =
      append(head, OperatorKind::log_probabilities, "log_probabilities", logits, std::move(rows));
  taken.outlives_forward = options.logits_outlive_forward;
  taken.also_likelihood = options.also_likelihood;
  if (options.head == TaskHead::log_probabilities_loss) {
    append(head, OperatorKind::alignment_loss, "loss", head.output, {});
  }
  return graph;
}

}  // namespace steelyard::model
