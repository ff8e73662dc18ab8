#include "step/expert_parallel.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace steelyard::step {

namespace {

using model::Block;
using model::Graph;
using model::Operator;
using model::OperatorKind;
using model::Weight;

Error impossible(std::string subject, std::int64_t ranks, std::string accepted) {
  Error error;
  error.code = ErrorCode::impossible_combination;
  error.subject = std::move(subject);
  error.found = std::to_string(ranks);
  error.accepted = std::move(accepted);
  return error;
}

// The experts that this rank holds: the first of each kind stand for any.
std::vector<std::int32_t> own_experts(const Operator& op) {
  if (op.mixture.stacked()) return op.weights;
  const std::size_t count = op.weights.size() / static_cast<std::size_t>(op.mixture.ranks);
  return {op.weights.begin(), op.weights.begin() + static_cast<std::ptrdiff_t>(count)};
}

// Takes the weights of other ranks' experts out of the block.
void keep_own(Block& block) {
  std::vector<bool> gone(block.weights.size(), false);
  for (Operator& op : block.operators) {
    if (op.kind != OperatorKind::experts) continue;
    const std::vector<std::int32_t> own = own_experts(op);
    for (std::int32_t index : op.weights) {
      const bool kept = std::find(own.begin(), own.end(), index) != own.end();
      gone[static_cast<std::size_t>(index)] = !kept;
    }
    if (op.mixture.stacked()) {  // a part of each weight, whose first dimension counts experts
      for (const std::int32_t index : op.weights) {
        block.weights[static_cast<std::size_t>(index)].shape.front() /= op.mixture.ranks;
      }
    }
    op.weights = own;
  }
  std::vector<std::int32_t> moved(block.weights.size(), -1);
  std::vector<Weight> left;
  for (std::size_t i = 0; i < gone.size(); ++i) {
    if (gone[i]) continue;
    moved[i] = static_cast<std::int32_t>(left.size());
    left.push_back(std::move(block.weights[i]));
  }
  block.weights = std::move(left);
  for (Operator& op : block.operators) {
    for (std::int32_t& weight : op.weights) {
      if (weight >= 0) weight = moved[static_cast<std::size_t>(weight)];
    }
  }
}

void split_features(Block& block, std::int64_t wide, std::int64_t ranks) {
  for (Weight& weight : block.weights) {
    if (!weight.expert) continue;
    for (std::int64_t& extent : weight.shape) {
      // The wide side holds the features, once (w1, w2) or twice (gate and up together).
      if (extent == wide || extent == 2 * wide) {
        extent /= ranks;
        break;
      }
    }
  }
}

// Weights of all experts: matrices, perhaps each with a bias behind it. That of the last matrix is
// whole on every rank.
void split_stacked_features(Block& block, const Operator& op) {
  const std::int64_t ranks = op.mixture.feature_ranks;
  bool first_bias = true;
  for (const std::int32_t index : op.weights) {
    Weight& weight = block.weights[static_cast<std::size_t>(index)];
    if (weight.role == model::WeightRole::bias) {
      if (std::exchange(first_bias, false)) weight.shape.back() /= ranks;
      continue;
    }
    const bool below = weight.shape.size() == 2;  // experts below one another
    std::int64_t& last = weight.shape.back();
    const bool wide = last == op.mixture.intermediate || last == 2 * op.mixture.intermediate;
    (below ? weight.shape.front() : wide ? last : weight.shape[1]) /= ranks;
  }
}

// The ranks of a stage are divided among the experts: those that are over hold copies.
Result<void> check_ranks(const facts::ParallelKeys& parallel) {
  const std::int64_t stage =
      checked_multiply(parallel.tensor * parallel.context, parallel.data.value_or(1));
  const std::int64_t apart = checked_multiply(parallel.expert, parallel.expert_tensor);
  if (stage % apart == 0) return {};
  Error error = impossible("parallel.expert", parallel.expert,
                           fmt::format("such that parallel.expert x parallel.expert_tensor, {}, "
                                       "divides the {} ranks of a stage",
                                       apart, stage));
  if (parallel.expert_tensor > 1) {
    error.hint = "each expert is split over parallel.expert_tensor ranks, " +
                 std::to_string(parallel.expert_tensor) +
                 "; Megatron-LM takes the tensor-parallel ranks unless told otherwise";
  }
  return fail(std::move(error));
}

}  // namespace

Result<Graph> spread_experts(const Graph& graph, const facts::ParallelKeys& parallel) {
  if (parallel.expert == 1 && parallel.expert_tensor == 1) return graph;
  Graph result = graph;
  bool found = false;
  for (model::Segment& segment : result.segments) {
    for (Block& block : segment.blocks) {
      std::int64_t wide = 0;
      bool stacked = false;
      for (Operator& op : block.operators) {
        if (op.mixture.experts == 0) continue;
        if (op.mixture.experts % parallel.expert != 0) {
          return fail(impossible("parallel.expert", parallel.expert,
                                 fmt::format("a divisor of the {} experts", op.mixture.experts)));
        }
        wide = op.mixture.intermediate;
        stacked = op.mixture.stacked();
        if (wide % parallel.expert_tensor != 0) {
          return fail(impossible("parallel.expert_tensor", parallel.expert_tensor,
                                 fmt::format("a divisor of an expert's {} features", wide)));
        }
        op.mixture.ranks = parallel.expert;
        op.mixture.feature_ranks = parallel.expert_tensor;
        found = true;
      }
      if (wide == 0) continue;
      keep_own(block);
      if (!stacked) {
        split_features(block, wide, parallel.expert_tensor);
        continue;
      }
      for (const Operator& op : block.operators) {
        if (op.kind == OperatorKind::experts) split_stacked_features(block, op);
      }
    }
  }
  if (!found) {
    return fail(impossible("parallel.expert", std::max(parallel.expert, parallel.expert_tensor),
                           "1: the model has no experts"));
  }
  STEELYARD_CHECK(check_ranks(parallel));
  return result;
}

}  // namespace steelyard::step
