// What holds this process below the machine: control groups of both versions, Slurm, containers
// (kernel: admin-guide/cgroup-v2.rst, admin-guide/cgroup-v1/memory.rst, scheduler/sched-bwc.rst;
// slurm.schedmd.com/sbatch.html, "output environment variables").
#pragma once

#include "facts/topology.h"
#include "sense/mounts.h"
#include "sense/tree.h"
#include "sense/words.h"

namespace steelyard::sense {

// Where a control group of this process shows itself: below a mount, at a path, with all above it.
struct CgroupPath {
  bool version_2 = false;
  std::string mount;  // "/sys/fs/cgroup/memory"
  std::string path;   // below the mount, "/" or "/a/b"
};

// The group of this process that a controller ("memory", "cpu", "cpuset") governs. A container
// often sees its own group as the root of the mount: then the path is "/". Nothing where none is
// mounted.
[[nodiscard]] std::optional<CgroupPath> cgroup_of(const Tree& tree,
                                                  const std::vector<MountLine>& lines,
                                                  std::string_view controller);

// Every group from the process's own up to the root of the mount, nearest first: "/a/b", "/a", "/".
[[nodiscard]] std::vector<std::string> upwards(const CgroupPath& group);

// All limits that are below the machine's own size (`memory`, `processors`), the least ones, and
// who sets them.
[[nodiscard]] facts::HostLimits host_limits(const Tree& tree, const Environment& environment,
                                            const std::vector<MountLine>& lines,
                                            const facts::HostMemory& memory,
                                            const facts::Processors& processors);

}  // namespace steelyard::sense
