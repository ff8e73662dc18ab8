// How fast records that nobody decodes come from the page cache into batches, as `steelyard
// rehearse` brings them: by its own engine, one thread that reads and some that copy.
#pragma once

#include <cstdint>
#include <vector>

#include "facts/measurements.h"

namespace steelyard::probe {

struct RecordOptions {
  int file = -1;             // open for buffered reads
  Bytes range{};             // from its beginning, in the page cache
  std::int64_t threads = 1;  // hardware threads
  Seconds budget = Seconds(2);
};

struct RecordRate {
  Bytes record{};
  std::int64_t workers = 1;                // that copy: one, or as many as hardware threads
  facts::Repeated<BytesPerSecond> rate{};  // bytes of records; no runs where the engine refused
};

// By sizes from 8 KiB to 1 MiB, as far as eight of them lie in the range. Runs are taken in turn,
// so that what disturbs for a while does not spoil all of one figure.
[[nodiscard]] std::vector<RecordRate> measure_records(const RecordOptions& options);

}  // namespace steelyard::probe
