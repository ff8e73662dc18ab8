// The processors: /proc/cpuinfo and /sys/devices/system/cpu (kernel: admin-guide/cputopology.rst,
// ABI/testing/sysfs-devices-system-cpu).
#pragma once

#include "facts/topology.h"
#include "sense/tree.h"

namespace steelyard::sense {

// Online ones only. Threads that share a core are those of one core_cpus_list (older kernels:
// thread_siblings_list); sockets are different physical_package_id. Without these files
// /proc/cpuinfo counts; what neither says is unknown.
[[nodiscard]] facts::Processors processors(const Tree& tree);

}  // namespace steelyard::sense
