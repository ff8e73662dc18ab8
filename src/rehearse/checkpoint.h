// Writes a checkpoint of MLPerf Storage's size, shape and fsync, and reads it back. All ranks write
// from one shared buffer, so that a rehearsal of a terabyte takes some megabytes of memory.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>

#include "base/error.h"
#include "base/quantity.h"
#include "facts/checkpoint_run.h"
#include "facts/storage_workload.h"

namespace steelyard::rehearse {

struct CheckpointOptions {
  Bytes size;                // to write; 0: the whole checkpoint
  std::int64_t rounds = 1;   // of writing and reading
  std::int64_t threads = 8;  // ranks at work at a time
  Bytes memory;              // of this host: below `checkpoint_memory` times it caches are dropped
  const std::atomic<bool>* stop = nullptr;  // set by a signal: the files are removed, Error
};

// The ranks that a scaled checkpoint has: as many as leave each its real size, at least 8 (or all).
[[nodiscard]] std::int64_t ranks_for(const facts::CheckpointWorkload& workload, Bytes size);

// In a folder of its own below `folder`, which is gone afterwards, whatever happens. Errors:
// bad_input (size or counts out of range), too_large (the disk would be filled), unreadable (what
// the system says; a full disk by name; data that come back changed).
[[nodiscard]] Result<facts::CheckpointRun> rehearse_checkpoint(
    const facts::CheckpointWorkload& workload, const facts::StorageRules& rules,
    const std::filesystem::path& folder, const CheckpointOptions& options);

}  // namespace steelyard::rehearse
