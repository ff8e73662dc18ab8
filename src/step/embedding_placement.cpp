#include "step/embedding_placement.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

namespace steelyard::step {

namespace {

using facts::EmbeddingOffload;
using facts::EmbeddingPlacement;
using model::Block;
using model::Operator;
using model::OperatorKind;

bool has_tables(const model::Graph& graph) {
  for (const model::Segment& segment : graph.segments) {
    for (const Block& block : segment.blocks) {
      for (const Operator& op : block.operators) {
        if (op.kind == OperatorKind::embedding_tables) return true;
      }
    }
  }
  return false;
}

Error misfit(std::string subject, std::string found, std::string accepted, std::string hint) {
  Error error;
  error.code = ErrorCode::impossible_combination;
  error.subject = std::move(subject);
  error.found = std::move(found);
  error.accepted = std::move(accepted);
  error.hint = std::move(hint);
  return error;
}

// Tables of the fullest rank: largest first, each to the rank that holds least.
std::vector<std::size_t> fullest_share(const Block& block, const Operator& op, std::int64_t ranks) {
  const auto size = [&](std::size_t table) {
    return model::elements(block.weights[static_cast<std::size_t>(op.weights[table])].shape);
  };
  std::vector<std::size_t> order(op.weights.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return size(a) > size(b); });
  std::vector<std::vector<std::size_t>> shares(static_cast<std::size_t>(ranks));
  std::vector<std::int64_t> held(shares.size(), 0);
  for (const std::size_t table : order) {
    const auto least =
        static_cast<std::size_t>(std::min_element(held.begin(), held.end()) - held.begin());
    held[least] = checked_add(held[least], size(table));
    shares[least].push_back(table);
  }
  const auto fullest =
      static_cast<std::size_t>(std::max_element(held.begin(), held.end()) - held.begin());
  std::sort(shares[fullest].begin(), shares[fullest].end());
  return shares[fullest];
}

// Takes the weights that the operator no longer names out of the block.
void drop_weights(Block& block, const std::vector<std::int32_t>& gone) {
  std::vector<std::int32_t> moved(block.weights.size(), -1);
  std::vector<model::Weight> left;
  for (std::size_t i = 0; i < block.weights.size(); ++i) {
    if (std::find(gone.begin(), gone.end(), static_cast<std::int32_t>(i)) != gone.end()) continue;
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

void keep_tables(Block& block, std::size_t at, const std::vector<std::size_t>& kept) {
  Operator& op = block.operators[at];
  std::vector<std::int32_t> gone, weights;
  std::vector<std::int64_t> pooling;
  std::vector<model::TensorRef> outputs;
  for (std::size_t i = 0; i < op.weights.size(); ++i) {
    if (std::find(kept.begin(), kept.end(), i) == kept.end()) {
      gone.push_back(op.weights[i]);
      continue;
    }
    weights.push_back(op.weights[i]);
    pooling.push_back(op.pooling[i]);
    outputs.push_back(op.outputs[i]);
  }
  op.weights = std::move(weights);
  op.pooling = std::move(pooling);
  op.outputs = std::move(outputs);
  drop_weights(block, gone);
}

// Splits what stays of each table: its rows, or its columns.
void cut_tables(Block& block, const Operator& op, std::size_t dimension, std::int64_t ranks) {
  for (const std::int32_t index : op.weights) {
    model::Shape& shape = block.weights[static_cast<std::size_t>(index)].shape;
    shape[dimension] = ceil_divide(shape[dimension], ranks);
  }
}

// What looks up the samples of all ranks; the operators behind read what the exchange brings.
void exchange(Block& block, std::size_t at, std::int64_t ranks, std::size_t features, bool sums) {
  Operator& tables = block.operators[at];
  const std::vector<model::TensorRef> old = tables.outputs;
  const std::int64_t samples =
      block.tensors[static_cast<std::size_t>(old.front().index)].shape.front();
  const std::int64_t width =
      block.tensors[static_cast<std::size_t>(old.front().index)].shape.back();
  Operator swap;
  swap.kind = OperatorKind::exchange_tables;
  swap.name = tables.name + ".exchange";
  swap.sums_parts = sums;
  for (std::size_t i = 0; i < tables.weights.size(); ++i) {
    model::Weight& weight = block.weights[static_cast<std::size_t>(tables.weights[i])];
    const std::int64_t columns = weight.shape.back();
    weight.placed = true;
    // Of row-wise tables each rank reads the rows that it has, 1/ranks of them on average.
    if (weight.touched > 0) {
      const std::int64_t rows = checked_multiply(samples, tables.pooling[i]);
      weight.touched = checked_multiply(sums ? rows : checked_multiply(rows, ranks), columns);
    }
    block.tensors.push_back({tables.name + ".of_all", {checked_multiply(samples, ranks), columns}});
    swap.inputs.push_back({false, static_cast<std::int32_t>(block.tensors.size()) - 1});
  }
  tables.outputs = swap.inputs;
  block.tensors.push_back(
      {swap.name, {samples, checked_multiply(static_cast<std::int64_t>(features), width)}});
  const model::TensorRef brought{false, static_cast<std::int32_t>(block.tensors.size()) - 1};
  swap.outputs = {brought};
  block.operators.insert(block.operators.begin() + static_cast<std::ptrdiff_t>(at) + 1,
                         std::move(swap));
}

// Whoever read the tables' own vectors reads what the exchange brought instead, once.
void redirect(Block& block, std::size_t behind, const std::vector<model::TensorRef>& gone,
              model::TensorRef brought) {
  const auto is_gone = [&](model::TensorRef ref) {
    return !ref.shared && std::any_of(gone.begin(), gone.end(), [&](model::TensorRef each) {
      return each.index == ref.index;
    });
  };
  for (std::size_t i = behind; i < block.operators.size(); ++i) {
    std::vector<model::TensorRef> inputs;
    bool known = false;
    for (const model::TensorRef ref : block.operators[i].inputs) {
      if (!is_gone(ref)) {
        inputs.push_back(ref);
      } else if (!std::exchange(known, true)) {
        inputs.push_back(brought);
      }
    }
    block.operators[i].inputs = std::move(inputs);
  }
}

void spread(Block& block, std::size_t at, EmbeddingPlacement placement, std::int64_t ranks) {
  const std::vector<model::TensorRef> gone = block.operators[at].outputs;
  const std::size_t features = gone.size();
  if (placement == EmbeddingPlacement::table_wise) {
    keep_tables(block, at, fullest_share(block, block.operators[at], ranks));
  } else {
    cut_tables(block, block.operators[at], placement == EmbeddingPlacement::row_wise ? 0 : 1,
               ranks);
  }
  exchange(block, at, ranks, features, placement == EmbeddingPlacement::row_wise);
  redirect(block, at + 2, gone, block.operators[at + 1].outputs.front());
}

void put_on_host(Block& block, const Operator& op, EmbeddingOffload where) {
  for (const std::int32_t index : op.weights) {
    model::Weight& weight = block.weights[static_cast<std::size_t>(index)];
    weight.host_elements = model::elements(weight.shape);
    if (where == EmbeddingOffload::uvm_caching) {
      weight.shape.front() = ceil_divide(weight.shape.front(), kCachedOneIn);
    } else {
      weight.shape.front() = 0;
    }
  }
}

}  // namespace

Result<model::Graph> place_tables(const model::Graph& graph, const facts::Job& job) {
  const EmbeddingPlacement placement = job.parallel.embeddings;
  const EmbeddingOffload offload = job.offload.embeddings;
  const bool placed = placement != EmbeddingPlacement::replicated;
  if (!placed && offload == EmbeddingOffload::none) return graph;
  const char* key = placed ? "parallel.embeddings" : "offload.embeddings";
  const std::string word(placed ? facts::name_of(placement) : facts::name_of(offload));
  if (!has_tables(graph)) {
    return fail(misfit(key, word, placed ? "replicated" : "none",
                       graph.model_type + " has no embedding tables to place"));
  }
  if (job.parallel.sharding != facts::Sharding::none) {
    return fail(misfit("parallel.sharding", std::string(facts::name_of(job.parallel.sharding)),
                       "none: " + std::string(key) + " is " + word,
                       "the dense part of a recommender is replicated beside its tables"));
  }
  const std::int64_t ranks = job.parallel.data.value_or(1);
  model::Graph local = graph;
  for (model::Segment& segment : local.segments) {
    for (Block& block : segment.blocks) {
      for (std::size_t i = 0; i < block.operators.size(); ++i) {
        if (block.operators[i].kind != OperatorKind::embedding_tables) continue;
        if (placed && ranks > 1) spread(block, i, placement, ranks);
        if (offload != EmbeddingOffload::none) put_on_host(block, block.operators[i], offload);
      }
    }
  }
  return local;
}

}  // namespace steelyard::step
