// memcpy, byte scan, first touch of pages, locking of pages: on one core and on all.
#pragma once

#include <vector>

#include "base/error.h"
#include "facts/measurements.h"

namespace steelyard::probe {

struct HostOptions {
  std::vector<int> threads{};  // hardware threads to run on
  Bytes available{};           // at most a quarter is used
  Bytes last_level_cache{};
  Seconds budget = Seconds(4);
};

// One entry for one core, and one for all where there are more.
[[nodiscard]] Result<std::vector<facts::HostRate>> measure_host(const HostOptions& options);

}  // namespace steelyard::probe
