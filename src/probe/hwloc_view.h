// The same machine as hwloc reads it: a second opinion on the readings of `sense`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "facts/topology.h"

namespace steelyard::probe {

struct HwlocView {
  std::int64_t sockets = 0, cores = 0, threads = 0, numa_nodes = 0;
  std::int64_t largest_cache_bytes = 0;  // of one cache of the highest level
};

// Of the running machine; of a recorded one with `root` (HWLOC_FSROOT: not from several threads at
// once). Nothing where hwloc cannot load it.
[[nodiscard]] std::optional<HwlocView> hwloc_view(const std::string& root = {});

// One sentence for each figure in which the two differ.
[[nodiscard]] std::vector<std::string> differences(const HwlocView& view,
                                                   const facts::Topology& topology);

}  // namespace steelyard::probe
