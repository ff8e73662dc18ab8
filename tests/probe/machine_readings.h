// The readings of a machine in the short form of machines/expected.json: what a person can write
// down from a listing of the machine, without looking at the program.
#pragma once

#include <fmt/format.h>

#include <map>
#include <string>

#include "facts/topology.h"
#include "facts/value.h"
#include "sense/mounts.h"
#include "sense/words.h"

namespace steelyard::probe {

using Readings = std::map<std::string, facts::Value>;

constexpr double kGib = 1073741824.0;

inline facts::Value gib(const facts::Known<Bytes>& bytes) {
  if (!bytes) return {};
  const double amount = bytes->real() / kGib;
  const auto whole = static_cast<std::int64_t>(amount);
  return static_cast<double>(whole) == amount ? facts::Value(whole) : facts::Value(amount);
}

inline facts::Value count(const facts::Known<std::int64_t>& known) {
  return known ? facts::Value(*known) : facts::Value();
}

inline std::string node_text(const facts::Known<std::int64_t>& node) {
  return node ? fmt::format("{}", *node) : "?";
}

inline std::string joined(const std::vector<std::string>& parts, std::string_view with) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : std::string(with)) + part;
  return text;
}

template <class List, class Text>
std::string listed(const List& list, Text text, std::string_view with = ", ") {
  std::vector<std::string> parts;
  for (const auto& item : list) parts.push_back(text(item));
  return joined(parts, with);
}

inline std::string lanes_text(const facts::PciLink& link) {
  return link.rate ? fmt::format("{:g}x{}", *link.transfers, *link.lanes) : "?";
}

inline std::string gpu_line(const facts::GpuDevice& gpu) {
  std::string link = lanes_text(gpu.link);
  if (gpu.link_most.rate) link += " of " + lanes_text(gpu.link_most);
  return fmt::format("{} {} {} node {} {}", gpu.vendor, gpu.name, gpu.pci, node_text(gpu.numa_node),
                     link);
}

inline std::string interface_line(const facts::NetworkInterface& one) {
  const std::string speed =
      one.speed ? fmt::format("{:g} GB/s", one.speed->value() / 1e9) : "unknown";
  return fmt::format("{} {} {} {} node {}", one.name, one.kind, one.up ? "up" : "down", speed,
                     node_text(one.numa_node));
}

inline std::string node_line(const facts::NumaNode& node) {
  const facts::Value memory = gib(node.memory);
  return fmt::format("{}: {}, {} GiB", node.id,
                     node.of_gpu ? "GPU" : sense::list_of_numbers(node.cpus),
                     memory.as_whole() == nullptr ? 0 : *memory.as_whole());
}

inline void add_gpus(Readings& r, const facts::Topology& t) {
  r["gpus"] = listed(t.gpus, gpu_line);
  r["gpu_count"] = static_cast<std::int64_t>(t.gpus.size());
  r["gpu_nodes"] = listed(
      t.gpus, [](const facts::GpuDevice& g) { return node_text(g.numa_node); }, " ");
  r["gpu_driver"] = t.gpu_driver;
  if (t.gpus.empty()) return;
  const facts::GpuDevice& gpu = t.gpus.front();
  r["gpu_name"] = gpu.name;
  r["gpu_memory"] = gpu.memory ? facts::Value(gpu.memory->value()) : facts::Value();
  if (gpu.power_limit_watts) r["gpu_watts"] = static_cast<std::int64_t>(*gpu.power_limit_watts);
  if (!gpu.links.empty() && gpu.links.front().rate) {
    r["gpu_links"] =
        fmt::format("{} to {} at {:g} GB/s", gpu.links.size(),
                    facts::name_of(gpu.links.front().peer), gpu.links.front().rate->value() / 1e9);
  }
}

inline void add_limits(Readings& r, const facts::HostLimits& limits) {
  r["limit_gib"] = gib(limits.memory);
  r["limited_by"] = limits.memory_limits.empty() ? "" : limits.memory_limits.front().by;
  r["used_gib"] = gib(limits.memory_used);
  r["limits"] = listed(
      limits.memory_limits,
      [](const facts::MemoryLimit& limit) {
        return fmt::format("{:g}", limit.bytes.real() / kGib);
      },
      " ");
  r["usable_threads"] =
      limits.cpus ? facts::Value(static_cast<std::int64_t>(*limits.cpus)) : facts::Value();
  r["usable_cores"] = count(limits.cores);
  r["shm_gib"] = gib(limits.shared_memory);
  r["cgroup"] = limits.cgroup;
  r["container"] = limits.container;
  r["scheduler"] = limits.scheduler;
}

inline void add_devices(Readings& r, const facts::Topology& t) {
  r["drives"] = listed(t.drives, [](const facts::Drive& drive) {
    return fmt::format("{} {} {} node {}", drive.name, drive.model, drive.size->value(),
                       node_text(drive.numa_node));
  });
  r["network"] = listed(t.network, interface_line);
  std::size_t ports = 0;
  double speed = 0;
  for (const facts::NetworkInterface& one : t.network) {
    if (one.kind == "infiniband" && one.up && one.speed) ++ports, speed = one.speed->value();
  }
  r["infiniband"] = fmt::format("{} x {:g} GB/s", ports, speed / 1e9);
  const facts::Mount* root = sense::mount_of(t.mounts, "/home");
  r["root_on"] = root == nullptr ? "" : root->drive;
  const facts::Mount* raid = sense::mount_of(t.mounts, "/raid/data");
  r["raid_on"] = raid == nullptr ? "" : raid->drive;
  for (const facts::Mount& mount : t.mounts) {
    if (mount.network) r["network_of"] = mount.path;
  }
}

inline Readings readings_of(const facts::Topology& t) {
  Readings r;
  const facts::Processors& cpu = t.processors;
  r["model"] = cpu.model;
  r["sockets"] = count(cpu.sockets);
  r["cores"] = count(cpu.cores);
  r["threads"] = count(cpu.threads);
  r["caches"] = listed(cpu.caches, [](const facts::CpuCache& c) {
    return fmt::format("L{} {} {}x{}/{}", c.level, c.kind, c.instances, c.size.value(), c.threads);
  });
  r["governors"] = joined(cpu.governors, " ");
  r["vector"] = joined(cpu.vector_sets, " ");
  r["virtual"] = cpu.virtual_machine;
  r["numa"] = listed(t.numa, node_line, "; ");
  r["memory_gib"] = gib(t.memory.total);
  r["swap_gib"] = gib(t.memory.swap);
  r["thp"] = t.memory.transparent_huge_pages;
  add_limits(r, t.limits);
  add_gpus(r, t);
  add_devices(r, t);
  return r;
}

}  // namespace steelyard::probe
