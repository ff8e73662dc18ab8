// Data sets of MLPerf Storage's workloads, made up: the format, the files and the sizes of the
// records are those of the workload (normally distributed with its standard deviation, not below a
// tenth of the mean); what is in them depends on the seed alone, not on the number of threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/quantity.h"
#include "facts/storage_workload.h"

namespace steelyard::rehearse {

struct GenerateOptions {
  Bytes size;  // of all records, about: whole files are written
  std::uint64_t seed = 1;
  std::int64_t threads = 1;
  // Set by a signal: what is being written is dropped, whole files stay.
  const std::atomic<bool>* stop = nullptr;
  // Bytes of records written so far; called by one thread at a time, after each file.
  std::function<void(Bytes)> progress{};
};

struct Generated {
  Bytes bytes;  // of records
  std::int64_t files = 0;
  Samples samples;
  bool stopped = false;
  std::vector<std::string> remarks;
};

// Errors: bad_input (the folder has something in it, a size below one record), too_large (the disk
// would be filled: a twentieth of it stays free), unreadable (what the system says; a full disk by
// name). Nothing unfinished is left.
[[nodiscard]] Result<Generated> generate(const facts::StorageWorkload& workload,
                                         const std::filesystem::path& folder,
                                         const GenerateOptions& options);

// The size of the sample with that number, as the generator draws it.
[[nodiscard]] std::uint64_t sample_bytes(const facts::StorageWorkload& workload, std::uint64_t seed,
                                         std::uint64_t sample);

// Whether `bytes` may be written below that folder: Error too_large where less than a twentieth of
// the disk would be left.
[[nodiscard]] Result<void> has_room(const std::filesystem::path& folder, Bytes bytes);

}  // namespace steelyard::rehearse
