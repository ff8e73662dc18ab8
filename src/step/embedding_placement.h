// Embedding tables that are not on every rank, or not on the GPU: parallel.embeddings and
// offload.embeddings (torchrec's sharding types and compute kernels).
#pragma once

#include "base/error.h"
#include "facts/job.h"
#include "model/graph.h"

namespace steelyard::step {

inline constexpr std::int64_t kCachedOneIn = 5;  // rows of a cached table that the GPU holds

// The graph of the rank that holds most:
// - table-wise: whole tables, the largest first to whoever holds least so far; it looks up the
//   samples of all ranks, and an all-to-all brings each rank its own;
// - row-wise: a part of the rows of each table; partial sums are reduced and scattered;
// - column-wise: a part of the columns of each table; an all-to-all.
// Tables on the host (cpu, uvm) are marked so; of cached ones (uvm-caching) the GPU holds a fifth
// of the rows (fbgemm_gpu, SplitTableBatchedEmbeddingBagsCodegen: cache_load_factor = 0.2). Errors:
// a placement of a model without tables; with sharded parameters.
[[nodiscard]] Result<model::Graph> place_tables(const model::Graph& graph, const facts::Job& job);

}  // namespace steelyard::step
