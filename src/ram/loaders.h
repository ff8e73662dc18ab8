// Loader processes, the batches between them and the GPU, and datasets kept in memory.
#pragma once

#include "base/error.h"
#include "facts/plan.h"
#include "ram/node.h"

namespace steelyard::ram {

// Adds loader_workers, prefetch, pinned, dataset_cache and shared_memory of a training node.
// Errors: missing_value when the cache needs a size that the job does not give.
[[nodiscard]] Result<void> add_data_path(const Node& node, Bytes sample_bytes,
                                         facts::RamBytes& bytes, Notes& notes);

// The dataset on storage, when its size is known.
[[nodiscard]] std::optional<Bytes> dataset_on_storage(const facts::DataKeys& data);

}  // namespace steelyard::ram
