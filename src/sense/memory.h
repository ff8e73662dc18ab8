// Host memory: /proc/meminfo, huge pages and NUMA nodes (kernel: filesystems/proc.rst,
// admin-guide/mm/hugetlbpage.rst, ABI/stable/sysfs-devices-node).
#pragma once

#include <cstdint>
#include <set>
#include <vector>

#include "facts/topology.h"
#include "sense/tree.h"

namespace steelyard::sense {

// Nodes that hold a GPU's own memory: its driver gives it to the kernel on Grace and POWER9
// (/proc/driver/nvidia/gpus/*/numa_status).
[[nodiscard]] std::set<std::int64_t> nodes_of_gpus(const Tree& tree);

[[nodiscard]] std::vector<facts::NumaNode> numa_nodes(const Tree& tree);

// MemTotal counts the nodes of GPUs; `total` does not.
[[nodiscard]] facts::HostMemory host_memory(const Tree& tree,
                                            const std::vector<facts::NumaNode>& nodes);

}  // namespace steelyard::sense
