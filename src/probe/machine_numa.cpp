#include "probe/machine_numa.h"

#include <algorithm>

#include "sense/words.h"

namespace steelyard::probe {
namespace {

using facts::HostNuma;
using facts::Known;

// A node that the list does not have is none that a plan could place something on.
Known<std::int64_t> node_among(const HostNuma& numa, const Known<std::int64_t>& node) {
  const bool there = node && std::ranges::any_of(numa.nodes, [&](const facts::HostNode& one) {
                       return one.id == *node;
                     });
  return there ? node : Known<std::int64_t>();
}

}  // namespace

HostNuma host_numa(const facts::Topology& topology,
                   const std::vector<const facts::GpuDevice*>& gpus) {
  HostNuma numa;
  for (const facts::NumaNode& node : topology.numa) {
    if (node.of_gpu || node.cpus.empty()) continue;
    numa.nodes.push_back({.id = node.id,
                          .socket = node.socket,
                          .memory = node.memory,
                          .cores = node.cores,
                          .cpus = sense::list_of_numbers(node.cpus)});
  }
  if (numa.nodes.empty()) return numa;
  for (const facts::GpuDevice* gpu : gpus) {
    numa.gpus.push_back({gpu->pci, node_among(numa, gpu->numa_node)});
  }
  for (const facts::NetworkInterface& one : topology.network) {
    if (one.up) numa.nics.push_back({one.name, node_among(numa, one.numa_node)});
  }
  for (const facts::Drive& drive : topology.drives) {
    numa.drives.push_back({drive.name, node_among(numa, drive.numa_node)});
  }
  numa.source = "/sys/devices/system/node";
  return numa;
}

}  // namespace steelyard::probe
