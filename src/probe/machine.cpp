#include "probe/machine.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "probe/machine_numa.h"

namespace steelyard::probe {
namespace {

using facts::Gpu;
using facts::GpuDevice;
using facts::GpuLinks;
using facts::Known;
using facts::Machine;
using facts::Provenance;
using facts::Topology;

// All links that lead to GPUs, directly or through a switch: none where a part is unknown.
Known<BytesPerSecond> link_to_gpus(const GpuDevice& device) {
  BytesPerSecond sum;
  std::int64_t links = 0;
  for (const GpuLinks& link : device.links) {
    if (link.peer == facts::GpuPeer::host) continue;
    if (!link.rate) return {};
    sum += *link.rate;
    links += link.count;
  }
  if (links == 0) return {};
  return {sum, Provenance::measured,
          fmt::format("{} links as the driver tells, one way, raw", links)};
}

// Copies were measured: that rate is what programs reach. Else the link as both ends can run it.
Known<BytesPerSecond> host_link(const GpuDevice& device) {
  const auto& to = device.rates.to_device;
  const auto& from = device.rates.from_device;
  if (to && from) return *to < *from ? to : from;
  if (to) return to;
  if (!device.link_most.rate) return {};
  const auto lanes = device.link.lanes ? *device.link.lanes : *device.link_most.lanes;
  const double share = static_cast<double>(lanes) / static_cast<double>(*device.link_most.lanes);
  return {*device.link_most.rate * std::min(1.0, share), Provenance::derived,
          fmt::format("PCIe, {:.3g} GT/s x {} lanes, raw", *device.link_most.transfers, lanes)};
}

template <class T>
void prefer(Known<T>& figure, const Known<T>& found) {
  if (found) figure = found;
}

// The best GEMM of a card that has no data sheet here: less than its peak, and better than nothing.
void stand_in(Known<FlopsPerSecond>& peak, const Known<FlopsPerSecond>& measured) {
  if (peak || !measured) return;
  peak = measured;
  peak.note = "no data sheet: the best GEMM (" + measured.note + ")";
}

Gpu gpu_of(const GpuDevice& device, const std::optional<Gpu>& known) {
  Gpu gpu = known.value_or(Gpu{});
  if (!known) {
    gpu.name = device.name.empty() ? "unknown GPU of " + device.vendor : device.name;
    gpu.vendor = device.vendor;
    gpu.memory = device.memory;
    if (gpu.memory) gpu.memory.note += "; a program can allocate somewhat less";
    stand_in(gpu.peak.tf32, device.rates.tf32);
    stand_in(gpu.peak.fp16, device.rates.fp16);
    stand_in(gpu.peak.bf16, device.rates.bf16);
    stand_in(gpu.peak.fp8, device.rates.fp8);
  }
  prefer(gpu.memory, device.program_memory);
  if (device.compute_capability) gpu.compute_capability = device.compute_capability;
  prefer(gpu.link, link_to_gpus(device));
  // The catalogue's own figure may be a link that sysfs does not show (C2C): a raw PCIe rate is
  // only better than nothing, a measured one better than all.
  const Known<BytesPerSecond> link = host_link(device);
  if (link.from == Provenance::measured || !gpu.host_link) prefer(gpu.host_link, link);
  prefer(gpu.measured_bf16, device.rates.bf16);
  prefer(gpu.power_watts, device.power_limit_watts);
  return gpu;
}

facts::Host host_of(const Topology& topology) {
  facts::Host host;
  host.memory = topology.limits.memory;
  host.cores = topology.limits.cores;
  host.sockets = topology.processors.sockets;
  if (topology.limits.cpus) {
    host.threads = {std::max<std::int64_t>(1, static_cast<std::int64_t>(*topology.limits.cpus)),
                    Provenance::measured, topology.limits.cpus.note};
  }
  host.cpu_model = topology.processors.model;
  return host;
}

bool solid(const facts::Drive& drive) {
  return !drive.rotational || !*drive.rotational;
}

// Without a measurement the rate stays unknown; capacity says what could hold a data set.
std::vector<facts::Storage> storage_of(const Topology& topology) {
  std::vector<facts::Storage> all;
  Bytes capacity;
  std::int64_t drives = 0;
  for (const facts::Drive& drive : topology.drives) {
    if (!drive.name.starts_with("nvme") || !solid(drive) || !drive.size) continue;
    capacity += *drive.size;
    ++drives;
  }
  if (drives > 0) {
    facts::Storage local;
    local.name = "nvme";
    local.capacity = {capacity, Provenance::measured, fmt::format("{} drives", drives)};
    all.push_back(std::move(local));
  }
  const bool far = std::any_of(topology.mounts.begin(), topology.mounts.end(),
                               [](const facts::Mount& mount) { return mount.network; });
  if (far) {
    facts::Storage network;
    network.name = "network";
    all.push_back(std::move(network));
  }
  return all;
}

// InfiniBand where there is some: it was bought for the jobs; else the fastest Ethernet interface.
Known<BytesPerSecond> network_per_gpu(const Topology& topology, std::int64_t gpus) {
  BytesPerSecond infiniband, ethernet;
  std::int64_t ports = 0;
  for (const facts::NetworkInterface& one : topology.network) {
    if (!one.up || !one.speed) continue;
    if (one.kind == "infiniband") infiniband += *one.speed, ++ports;
    if (one.kind == "ethernet") ethernet = std::max(ethernet, *one.speed);
  }
  if (gpus < 1 || (ports == 0 && !(ethernet.value() > 0))) return {};
  const BytesPerSecond node = ports > 0 ? infiniband : ethernet;
  return {node * (1.0 / static_cast<double>(gpus)), Provenance::derived,
          fmt::format("{} of {} over {} GPUs", to_text(node),
                      ports > 0 ? fmt::format("{} InfiniBand ports", ports)
                                : std::string("the fastest Ethernet interface"),
                      gpus)};
}

bool same_card(const GpuDevice& a, const GpuDevice& b) {
  return a.vendor == b.vendor && a.name == b.name && a.memory.value == b.memory.value;
}

}  // namespace

const GpuDevice* first_gpu(const Topology& topology) {
  const auto first = std::find_if(topology.gpus.begin(), topology.gpus.end(),
                                  [](const GpuDevice& gpu) { return gpu.usable; });
  return first == topology.gpus.end() ? nullptr : &*first;
}

std::int64_t alike_gpus(const Topology& topology) {
  const GpuDevice* first = first_gpu(topology);
  if (first == nullptr) return 0;
  return std::count_if(topology.gpus.begin(), topology.gpus.end(),
                       [&](const GpuDevice& gpu) { return gpu.usable && same_card(gpu, *first); });
}

Machine machine_of(const Topology& topology, const std::optional<Gpu>& known, const Gpu& no_gpu,
                   const std::string& date) {
  Machine machine;
  machine.id = "probed";
  machine.kind = topology.processors.virtual_machine ? "virtual-machine" : "server";
  const GpuDevice* first = first_gpu(topology);
  machine.gpus = std::max<std::int64_t>(1, alike_gpus(topology));
  machine.gpu = first == nullptr ? no_gpu : gpu_of(*first, known);
  machine.name = "probed machine";
  machine.host = host_of(topology);
  std::vector<const GpuDevice*> counted;
  for (const GpuDevice& gpu : topology.gpus) {
    if (first != nullptr && gpu.usable && same_card(gpu, *first)) counted.push_back(&gpu);
  }
  machine.host.numa = host_numa(topology, counted);
  machine.storage = storage_of(topology);
  if (first != nullptr) machine.network_per_gpu = network_per_gpu(topology, machine.gpus);
  machine.sources.push_back("steelyard probe, " + date);
  machine.confidence = topology.warnings.empty() ? "high" : "medium";
  for (const std::string& warning : topology.warnings) {
    machine.notes += (machine.notes.empty() ? "" : "; ") + warning;
  }
  return machine;
}

}  // namespace steelyard::probe
