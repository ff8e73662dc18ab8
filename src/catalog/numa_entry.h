// The key host.numa of an entry of catalog/machines.json.
#pragma once

#include "catalog/fields.h"
#include "facts/machine.h"

namespace steelyard::catalog {

// {"nodes": [{"socket": 0, "cpus": "0-15,128-143"}, ...], "gpus": [3, 3, 1, ...],
//  "nics": {"mlx5_0": 3}, "drives": {"nvme0n1": 0}, "source": "..."}: nodes in the order of their
// numbers from 0, GPUs in CUDA's order; all but nodes and source may be left out. Every node holds
// an equal part of the host's memory. What is wrong goes to `fields`.
[[nodiscard]] facts::HostNuma numa_of(const facts::Value& entry, const facts::Host& host,
                                      Fields& fields);

}  // namespace steelyard::catalog
