#include "step/host_rows.h"

#include <algorithm>
#include <cmath>

#include "step/embedding_placement.h"

namespace steelyard::step {
namespace {

using facts::EmbeddingOffload;
using model::Block;
using model::Operator;
using model::OperatorKind;

struct Lookups {                         // in one table, of a micro-batch
  std::int64_t drawn = 0, distinct = 0;  // rows
  std::int64_t vectors = 0;              // summed rows that come of it
  std::int64_t width = 0;
};

// Each rank reads its part of the rows where they are divided.
bool splits_rows(const Block& block) {
  return std::ranges::any_of(block.operators, [](const Operator& op) {
    return op.kind == OperatorKind::exchange_tables && op.sums_parts;
  });
}

Lookups lookups_of(const Block& block, const Operator& op, std::size_t table, std::int64_t ranks) {
  const model::Weight& weight = block.weights[static_cast<std::size_t>(op.weights[table])];
  Lookups found;
  found.vectors = block.tensors[static_cast<std::size_t>(op.outputs[table].index)].shape.front();
  found.width = weight.shape.back();
  found.drawn = checked_multiply(found.vectors, op.pooling[table]);
  if (splits_rows(block)) found.drawn = ceil_divide(found.drawn, std::max<std::int64_t>(1, ranks));
  const double rows = static_cast<double>(weight.host_elements / found.width);
  found.distinct = checked_round(-rows * std::expm1(-static_cast<double>(found.drawn) / rows));
  return found;
}

void add(HostRows& rows, const Lookups& table, const facts::OffloadKeys& offload) {
  const auto grow = [&](std::int64_t& sum, std::int64_t count) {
    sum = checked_add(sum, checked_multiply(count, table.width));
  };
  switch (offload.embeddings) {
    case EmbeddingOffload::none: return;
    case EmbeddingOffload::cpu:
      grow(rows.read_there, table.drawn);
      grow(rows.fetched, table.vectors);
      grow(rows.returned, table.vectors);
      return;
    case EmbeddingOffload::uvm: grow(rows.fetched, table.drawn); return;
    case EmbeddingOffload::uvm_caching: {
      // A missing row comes once, and the one whose place it takes goes back meanwhile.
      const double held = 1.0 / static_cast<double>(kCachedOneIn);
      const double missing = 1.0 - offload.embedding_hits.value_or(held);
      grow(rows.fetched, checked_round(missing * static_cast<double>(table.distinct)));
      return;
    }
  }
}

bool on_host(const Block& block, const Operator& op, std::size_t table) {
  return block.weights[static_cast<std::size_t>(op.weights[table])].host_elements > 0;
}

}  // namespace

HostRows host_rows(const Block& block, const facts::OffloadKeys& offload, std::int64_t ranks) {
  HostRows rows;
  if (offload.embeddings == EmbeddingOffload::none) return rows;
  for (const Operator& op : block.operators) {
    if (op.kind != OperatorKind::embedding_tables) continue;
    for (std::size_t i = 0; i < op.weights.size(); ++i) {
      if (on_host(block, op, i)) add(rows, lookups_of(block, op, i, ranks), offload);
    }
  }
  return rows;
}

std::int64_t distinct_elements(const model::Graph& graph, const model::Weight& weight,
                               std::int64_t ranks) {
  for (const model::Segment& segment : graph.segments) {
    for (const Block& block : segment.blocks) {
      for (const Operator& op : block.operators) {
        if (op.kind != OperatorKind::embedding_tables) continue;
        for (std::size_t i = 0; i < op.weights.size(); ++i) {
          if (&block.weights[static_cast<std::size_t>(op.weights[i])] != &weight) continue;
          const Lookups found = lookups_of(block, op, i, ranks);
          return checked_multiply(found.distinct, found.width);
        }
      }
    }
  }
  return 0;
}

}  // namespace steelyard::step
