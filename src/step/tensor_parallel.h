// The graph of one rank of a tensor-parallel group: matrices split by columns, then by rows, with
// the collectives between (Megatron-LM, arXiv 1909.08053; sequence parallel: arXiv 2205.05198).
//
// A linear that reads the residual stream gives its outputs to the ranks (columns); one that reads
// split features sums over them (rows). Embedding and output projection are split by vocabulary.
#pragma once

#include "base/error.h"
#include "model/graph.h"

namespace steelyard::step {

// `ranks` >= 1; 1 returns the graph as it is. With `sequence` the tensors between the split parts
// hold 1/ranks of the tokens. Errors: heads, features or tokens that the ranks do not divide.
[[nodiscard]] Result<model::Graph> split_over_ranks(const model::Graph& graph, std::int64_t ranks,
                                                    bool sequence);

// Tables of learned positions, of which each of the ranks keeps 1/ranks of the rows.
void cut_positions(model::Graph& graph, std::int64_t ranks);

// Tables of tokens that each of the ranks holds whole, as `whole` has them.
void restore_tables(model::Graph& graph, const model::Graph& whole);

}  // namespace steelyard::step
