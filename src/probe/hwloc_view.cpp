#include "probe/hwloc_view.h"

#include <fmt/format.h>
#include <hwloc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

namespace steelyard::probe {
namespace {

struct Destroy {
  void operator()(hwloc_topology_t topology) const { hwloc_topology_destroy(topology); }
};
using Loaded = std::unique_ptr<hwloc_topology, Destroy>;

// hwloc knows no call for another root, only the variable; the Linux component alone then reads,
// as cpuid and the PCI library would tell of the running machine.
class OtherRoot {
 public:
  explicit OtherRoot(const std::string& root) : set_(!root.empty()) {
    if (!set_) return;
    setenv("HWLOC_FSROOT", root.c_str(), 1);
    setenv("HWLOC_COMPONENTS", "linux,stop", 1);
  }
  ~OtherRoot() {
    if (!set_) return;
    unsetenv("HWLOC_FSROOT");
    unsetenv("HWLOC_COMPONENTS");
  }
  OtherRoot(const OtherRoot&) = delete;
  OtherRoot& operator=(const OtherRoot&) = delete;

 private:
  bool set_;
};

Loaded loaded() {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return nullptr;
  Loaded topology(raw);
  // What this process may not use is part of the machine all the same.
  hwloc_topology_set_flags(raw, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
  if (hwloc_topology_load(raw) != 0) return nullptr;
  return topology;
}

std::int64_t count(const Loaded& topology, hwloc_obj_type_t type) {
  return std::max(0, hwloc_get_nbobjs_by_type(topology.get(), type));
}

void compare(std::vector<std::string>& found, const char* what, std::int64_t hwloc,
             const facts::Known<std::int64_t>& own) {
  if (hwloc == 0 || !own || *own == hwloc) return;
  found.push_back(fmt::format("{}: hwloc counts {}, the kernel's files say {}", what, hwloc, *own));
}

}  // namespace

std::optional<HwlocView> hwloc_view(const std::string& root) {
  const OtherRoot other(root);
  const Loaded topology = loaded();
  if (!topology) return std::nullopt;
  HwlocView view;
  view.sockets = count(topology, HWLOC_OBJ_PACKAGE);
  view.cores = count(topology, HWLOC_OBJ_CORE);
  view.threads = count(topology, HWLOC_OBJ_PU);
  view.numa_nodes = count(topology, HWLOC_OBJ_NUMANODE);
  for (const auto type : {HWLOC_OBJ_L4CACHE, HWLOC_OBJ_L3CACHE, HWLOC_OBJ_L2CACHE}) {
    const hwloc_obj_t cache = hwloc_get_obj_by_type(topology.get(), type, 0);
    if (cache == nullptr) continue;
    view.largest_cache_bytes = static_cast<std::int64_t>(cache->attr->cache.size);
    break;
  }
  return view;
}

std::vector<std::string> differences(const HwlocView& view, const facts::Topology& topology) {
  std::vector<std::string> found;
  compare(found, "sockets", view.sockets, topology.processors.sockets);
  compare(found, "cores", view.cores, topology.processors.cores);
  compare(found, "threads", view.threads, topology.processors.threads);
  // hwloc leaves out what NVIDIA's driver onlines (HWLOC_KEEP_NVIDIA_GPU_NUMA_NODES).
  const auto nodes = std::count_if(topology.numa.begin(), topology.numa.end(),
                                   [](const facts::NumaNode& node) { return !node.of_gpu; });
  if (nodes > 0) {
    compare(found, "NUMA nodes", view.numa_nodes,
            {static_cast<std::int64_t>(nodes), facts::Provenance::measured});
  }
  return found;
}

}  // namespace steelyard::probe
