// What writing and reading back a checkpoint took.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/quantity.h"

namespace steelyard::facts {

struct CheckpointRun {
  std::string workload;
  Bytes whole;             // of the real checkpoint
  Bytes bytes;             // that were written and read, each time
  std::int64_t ranks = 0;  // that wrote, each its model and its optimizer file
  std::int64_t threads = 0;
  std::vector<Seconds> writes{};  // with fsync, one per round
  std::vector<Seconds> syncs{};   // the part of it that the slowest rank spent in fsync
  std::vector<Seconds> reads{};
  Ratio cached;                 // share of the data that was in memory when it was read; the most
  bool caches_dropped = false;  // between write and read
  Bytes memory;                 // of our own buffers
  std::vector<std::string> remarks{};
};

}  // namespace steelyard::facts
