#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "probe/topology.h"

namespace steelyard::probe {
namespace {

void about_processors(const facts::Topology& topology, std::vector<std::string>& warnings) {
  const auto& governors = topology.processors.governors;
  const bool slow = std::any_of(governors.begin(), governors.end(),
                                [](const std::string& name) { return name != "performance"; });
  if (slow) {
    std::string names;
    for (const std::string& name : governors) names += (names.empty() ? "" : ", ") + name;
    warnings.push_back(fmt::format(
        "frequency governor {}: cores slow down when idle, so short measurements come out low; "
        "`cpupower frequency-set -g performance` ends that",
        names));
  }
  if (topology.processors.virtual_machine) {
    warnings.push_back(
        "a virtual machine: sockets, caches and NUMA nodes are what the hypervisor shows, and "
        "other "
        "machines may share the processors");
  }
}

void about_limits(const facts::Topology& topology, std::vector<std::string>& warnings) {
  const facts::HostLimits& limits = topology.limits;
  if (!limits.memory_limits.empty() && topology.memory.total) {
    const facts::MemoryLimit& least = limits.memory_limits.front();
    warnings.push_back(fmt::format("{} of the machine's {} of memory: {} limits this process",
                                   to_text(least.bytes), to_text(*topology.memory.total),
                                   least.by));
  }
  constexpr Bytes kSmallShared = Bytes(std::int64_t{1} << 30);
  if (limits.shared_memory && *limits.shared_memory < kSmallShared) {
    warnings.push_back(
        fmt::format("/dev/shm takes {}: batches of loader processes lie there (docker: --shm-size)",
                    to_text(*limits.shared_memory)));
  }
}

void about_nodes(const facts::Topology& topology, std::vector<std::string>& warnings) {
  for (const facts::NumaNode& node : topology.numa) {
    if (!node.cpus.empty() || node.of_gpu) continue;
    warnings.push_back(fmt::format(
        "NUMA node {} has {} and no processor: an expander, or a GPU whose driver does not say so; "
        "it is counted as host memory",
        node.id, node.memory ? to_text(*node.memory) : "memory"));
  }
}

// Speed drops while a GPU idles; lanes do not.
void about_gpus(const facts::Topology& topology, std::vector<std::string>& warnings) {
  const bool several = topology.numa.size() > 1;
  for (const facts::GpuDevice& gpu : topology.gpus) {
    const auto& now = gpu.link.lanes;
    const auto& most = gpu.link_most.lanes;
    if (now && most && *now < *most) {
      warnings.push_back(
          fmt::format("GPU {}: {} of {} PCIe lanes are connected", gpu.index, *now, *most));
    }
    if (gpu.mig && *gpu.mig) {
      warnings.push_back(
          fmt::format("GPU {} is divided (MIG, {} instances): a process gets one of them, not what "
                      "the card has",
                      gpu.index, gpu.instances.size()));
    }
    if (several && !gpu.numa_node) {
      warnings.push_back(
          fmt::format("GPU {}: the firmware does not say which NUMA node it is near", gpu.index));
    }
    if (gpu.name.empty() && topology.gpu_driver.empty()) {
      warnings.push_back(fmt::format("GPU {} ({}): no driver is loaded", gpu.index, gpu.pci));
    }
  }
}

}  // namespace

void warn(facts::Topology& topology) {
  about_processors(topology, topology.warnings);
  about_limits(topology, topology.warnings);
  about_nodes(topology, topology.warnings);
  about_gpus(topology, topology.warnings);
}

}  // namespace steelyard::probe
