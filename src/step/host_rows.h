// Rows of embedding tables in host memory (offload.embeddings) that a micro-batch looks up: what
// crosses the host link for them, and what the host's processors read. fbgemm_gpu at 71d6f8b:
// src/memory_utils (managed tensors stay in host memory, the GPU reads them where they lie),
// split_table_batched_embeddings_ops_training.py. docs/model/compute.md, "Rows of tables".
#pragma once

#include <cstdint>

#include "facts/job.h"
#include "model/graph.h"

namespace steelyard::step {

// Elements of one micro-batch; the link carries both ways at once, so the way that carries more.
struct HostRows {
  std::int64_t fetched = 0;     // over the link before forward goes on
  std::int64_t read_there = 0;  // by the host's processors, which look them up
  std::int64_t returned = 0;    // gradients of what the host looked up
};

// Of a block as place_tables left it; `ranks` look up each other's samples where tables are placed.
[[nodiscard]] HostRows host_rows(const model::Block& block, const facts::OffloadKeys& offload,
                                 std::int64_t ranks);

// Elements of the rows of this table that a micro-batch looks up, each row once. Ids are taken to
// be drawn evenly: n of N rows are N (1 - exp(-n / N)) different ones.
[[nodiscard]] std::int64_t distinct_elements(const model::Graph& graph, const model::Weight& weight,
                                             std::int64_t ranks);

}  // namespace steelyard::step
