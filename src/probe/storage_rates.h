// How fast files come from and go to the folder's disk: sequential and random by request size and
// depth, small files, page cache.
#pragma once

#include <filesystem>
#include <functional>

#include "base/error.h"
#include "facts/measurements.h"
#include "probe/io_engine.h"
#include "probe/test_file.h"

namespace steelyard::probe {

struct StorageOptions {
  std::filesystem::path folder{};
  Bytes test_file = Bytes(std::int64_t{1} << 30);
  bool guest = false;  // this kernel runs in a virtual machine: a host's cache may lie below
  Seconds budget = Seconds(15);
  std::int64_t threads = 1;  // hardware threads to run on
  // Whether the kernel gives a ring, and how much is free: the real ones, or a test's.
  RingProbe ring = try_io_uring;
  std::function<Result<FileSystemSpace>(const std::filesystem::path&)> space = space_of;
};

// Fails where the folder is none or not writable, the disk too full, or a request fails. What it
// makes is gone when it returns.
[[nodiscard]] Result<facts::StorageMeasurements> measure_storage(const StorageOptions& options);

// Why what was measured may be a cache: memory below or beside the disk, rates that no drive has.
[[nodiscard]] std::vector<std::string> cache_warnings(const facts::StorageMeasurements& seen,
                                                      const FileSystemKind& kind, bool guest);

}  // namespace steelyard::probe
