// What follows from a workload of MLPerf Storage: what its accelerators ask of the storage, how
// large a data set must be before its result counts, what a checkpoint weighs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/quantity.h"
#include "facts/storage_workload.h"

namespace steelyard::rehearse {

// Bytes of a step over the time of a step: the rate that keeps one accelerator busy.
[[nodiscard]] BytesPerSecond demand(const facts::StorageWorkload& workload);

// What the readers of one accelerator hold: each two batches (prefetch 2).
[[nodiscard]] Bytes reader_memory(const facts::StorageWorkload& workload);

struct DatasetNeed {
  Bytes by_memory;  // 5 x the memory of all hosts
  Bytes by_steps;   // 500 steps of all accelerators
  [[nodiscard]] Bytes bytes() const { return by_memory > by_steps ? by_memory : by_steps; }
};
[[nodiscard]] DatasetNeed dataset_need(const facts::StorageWorkload& workload,
                                       const facts::StorageRules& rules, std::int64_t accelerators,
                                       Bytes memory);

// What must be said of a data set that is smaller; empty when it is large enough.
[[nodiscard]] std::vector<std::string> dataset_remarks(const facts::StorageWorkload& workload,
                                                       const facts::StorageRules& rules,
                                                       std::int64_t accelerators, Bytes memory,
                                                       Bytes dataset);

// Parameters = 2 V h + h + L (2 h + h (h + 2 k) + h h + 3 h f), k the width of keys (kv_heads of
// hidden / heads each): argonne-lcf/dlio_benchmark, checkpointing/base_checkpointing.py.
[[nodiscard]] Parameters parameters_of(const facts::CheckpointWorkload& workload);
// 2 bytes of model and 12 of optimizer for each.
[[nodiscard]] Bytes model_bytes(const facts::CheckpointWorkload& workload);
[[nodiscard]] Bytes optimizer_bytes(const facts::CheckpointWorkload& workload);
[[nodiscard]] std::int64_t processes_of(const facts::CheckpointWorkload& workload);

}  // namespace steelyard::rehearse
