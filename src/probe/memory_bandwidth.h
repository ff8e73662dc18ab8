// Memory bandwidth by the node of the threads and the node of the memory.
#pragma once

#include <cstdint>
#include <vector>

#include "base/error.h"
#include "facts/measurements.h"
#include "sense/tree.h"

namespace steelyard::probe {

// A NUMA node: hardware threads that this process may use (none for a node of memory only), and
// whether it has memory.
struct NodeThreads {
  int node = 0;
  std::vector<int> threads{};
  bool has_memory = true;
};

// From /sys/devices/system/node, with the threads in `allowed` only. One node with all of
// `allowed` where the kernel shows no nodes.
[[nodiscard]] std::vector<NodeThreads> node_threads(const sense::Tree& tree,
                                                    const std::vector<int>& allowed);

// All caches of the last level together, as /sys/devices/system/cpu/cpu*/cache shows them for the
// threads in `allowed`; 0 where it shows none.
[[nodiscard]] Bytes last_level_cache(const sense::Tree& tree, const std::vector<int>& allowed);

struct MemoryOptions {
  std::vector<NodeThreads> nodes{};
  Bytes last_level_cache{};
  Bytes available{};  // memory that may be used: the buffer takes at most a quarter
  Seconds budget = Seconds(10);
};

// Each node with its own memory on all its cores and on one, then all cores of a node with the
// memory of every other. Fails where the buffers cannot be had.
[[nodiscard]] Result<facts::MemoryMeasurements> measure_memory(const MemoryOptions& options);

}  // namespace steelyard::probe
