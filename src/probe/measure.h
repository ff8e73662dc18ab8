// All measurements of the host in one call, within a time budget. The parts have headers of their
// own: memory_bandwidth.h, host_rates.h, image_rates.h, storage_rates.h.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "facts/measurements.h"

namespace steelyard::probe {

struct MeasureOptions {
  bool memory = true;
  bool host = true;    // memcpy, byte scan, page faults, locked pages
  bool images = true;  // JPEG, PNG, resize
  bool storage = true;
  Seconds budget = Seconds(40);  // for everything; `--quick` is 7. The sum is met within about 10 %
  // Folders to measure, one per mount; the current folder where none is named.
  std::vector<std::filesystem::path> storage_paths{};
  // A folder with JPEG and PNG files to decode; synthetic images where it is empty.
  std::filesystem::path images_path{};
  // Told before each part begins ("memory bandwidth"); for a progress line.
  std::function<void(const std::string& part)> progress{};
};

// Fails on a folder that is not there or not writable, on a disk that is too full, and when a
// signal (SIGINT, SIGTERM, SIGHUP) stopped it: then everything it made is gone, and the signal is
// delivered again to whoever handled it before, by default ending the process.
[[nodiscard]] Result<facts::Measurements> measure(const MeasureOptions& options);

}  // namespace steelyard::probe
