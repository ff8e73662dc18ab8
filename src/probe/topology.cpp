#include "probe/topology.h"

#include <algorithm>

#include "sense/devices.h"
#include "sense/gpus.h"
#include "sense/limits.h"
#include "sense/memory.h"
#include "sense/mounts.h"
#include "sense/processors.h"

namespace steelyard::probe {

facts::Topology topology(const sense::Tree& tree, const sense::Environment& environment) {
  const std::vector<sense::MountLine> lines = sense::mount_lines(tree);
  facts::Topology found;
  found.kernel = tree.text("/proc/sys/kernel/osrelease").value_or("");
  found.processors = sense::processors(tree);
  found.numa = sense::numa_nodes(tree);
  found.memory = sense::host_memory(tree, found.numa);
  found.limits = sense::host_limits(tree, environment, lines, found.memory, found.processors);
  found.drives = sense::drives(tree);
  found.mounts = sense::mounts(tree, lines);
  found.network = sense::network(tree);
  found.gpus = sense::gpus(tree);
  found.gpu_driver = sense::gpu_driver(tree);
  return found;
}

}  // namespace steelyard::probe
