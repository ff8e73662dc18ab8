// How fast files come from and go to the folder's disk: sequential and random by request size and
// depth, small files, page cache.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "base/error.h"
#include "facts/measurements.h"

namespace steelyard::probe {

struct FileSystemSpace {
  Bytes total{};
  Bytes free{};  // that this user may fill
};

struct StorageOptions {
  std::filesystem::path folder{};
  Bytes test_file = Bytes(std::int64_t{1} << 30);
  Bytes host_memory{};  // a file smaller than this may lie in a cache of the host below a guest
  Seconds budget = Seconds(15);
  bool allow_io_uring = true;  // false: the thread engine at once
  // Injected by tests; the real ones where empty.
  std::function<Result<FileSystemSpace>(const std::filesystem::path&)> space{};
};

// The test file's size on a file system with that much free: at most what was asked for, half of
// the free space and a tenth of it. Fails below 64 MiB.
[[nodiscard]] Result<Bytes> permitted_test_file(Bytes asked, const FileSystemSpace& space);

[[nodiscard]] Result<facts::StorageMeasurements> measure_storage(const StorageOptions& options);

}  // namespace steelyard::probe
