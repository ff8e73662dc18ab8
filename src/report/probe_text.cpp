// What `steelyard probe` found, for a person.
#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "base/text_table.h"
#include "report/paint.h"
#include "report/probe_text.h"

namespace steelyard::report {
namespace {

using facts::Known;

template <class T>
std::string known(const Known<T>& figure) {
  if (!figure) return "unknown";
  if constexpr (std::is_same_v<T, std::int64_t>) {
    return grouped(*figure);
  } else {
    return to_text(*figure);
  }
}

std::string listed(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

std::string ranges(const std::vector<std::int64_t>& numbers) {
  std::string text;
  for (std::size_t i = 0; i < numbers.size();) {
    std::size_t last = i;
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
    if (!text.empty()) text += ",";
    text +=
        last == i ? fmt::format("{}", numbers[i]) : fmt::format("{}-{}", numbers[i], numbers[last]);
    i = last + 1;
  }
  return text;
}

class Section {
 public:
  Section(const Paint& paint, std::string title)
      : paint_(paint), title_(std::move(title)), table_({{""}, {""}, {""}}) {}

  void row(std::string name, std::string value, std::string_view how = {}) {
    table_.add({std::move(name), paint_.outside(value),
                paint_.ink(paint_.outside(shortened(how, room())), Ink::quiet)});
  }
  template <class T>
  void figure(std::string name, const Known<T>& value) {
    row(std::move(name), known(value), value.note);
  }

  [[nodiscard]] std::string text() const {
    if (table_.empty()) return "";
    return paint_.ink(title_, Ink::strong) + "\n" + table_.text(2) + "\n";
  }

 private:
  [[nodiscard]] std::size_t room() const {
    constexpr std::size_t kNameAndValue = 48;
    return std::max<std::size_t>(paint_.columns(), kNameAndValue + 20) - kNameAndValue;
  }

  const Paint& paint_;
  std::string title_;
  TextTable table_;
};

std::string processors_text(const facts::Topology& t, const Paint& paint) {
  Section section(paint, "Processors");
  const facts::Processors& cpu = t.processors;
  section.row("model", cpu.model.empty() ? "unknown" : cpu.model);
  section.figure("sockets", cpu.sockets);
  section.figure("cores", cpu.cores);
  section.figure("threads", cpu.threads);
  for (const facts::CpuCache& cache : cpu.caches) {
    section.row(fmt::format("L{} {}", cache.level, cache.kind),
                fmt::format("{} {} {}", cache.instances, paint.signs().times, to_text(cache.size)),
                cache.threads == 1 ? "each of one thread"
                                   : fmt::format("each shared by {} threads", cache.threads));
  }
  if (!cpu.vector_sets.empty()) section.row("instruction sets", listed(cpu.vector_sets));
  if (!cpu.governors.empty()) section.row("frequency governor", listed(cpu.governors));
  return section.text();
}

std::string memory_text(const facts::Topology& t, const Paint& paint) {
  Section section(paint, "Host memory");
  section.figure("total", t.memory.total);
  section.figure("available now", t.memory.available);
  if (t.memory.swap && t.memory.swap->value() > 0) section.figure("swap", t.memory.swap);
  for (const facts::HugePages& pages : t.memory.huge_pages) {
    if (pages.total == 0) continue;
    section.row("huge pages of " + to_text(pages.size),
                fmt::format("{} of {} free", pages.free, pages.total));
  }
  if (!t.memory.transparent_huge_pages.empty()) {
    section.row("transparent huge pages", t.memory.transparent_huge_pages);
  }
  return section.text();
}

std::string numa_text(const facts::Topology& t, const Paint& paint) {
  if (t.numa.size() < 2) return "";
  Section section(paint, "NUMA nodes");
  for (const facts::NumaNode& node : t.numa) {
    std::string distances;
    for (const std::int64_t distance : node.distances) distances += fmt::format(" {}", distance);
    section.row(fmt::format("node {}", node.id), known(node.memory),
                node.of_gpu ? "memory of a GPU"
                            : (node.cpus.empty() ? std::string("no processors")
                                                 : "processors " + ranges(node.cpus)) +
                                  (distances.empty() ? "" : "; distances" + distances));
  }
  return section.text();
}

std::string limits_text_of(const facts::Topology& t, const Paint& paint) {
  Section section(paint, "What this process may use");
  const facts::HostLimits& limits = t.limits;
  section.figure("memory", limits.memory);
  if (limits.memory_used) section.figure("of that in use", limits.memory_used);
  for (std::size_t i = 1; i < limits.memory_limits.size(); ++i) {
    section.row("further limit", to_text(limits.memory_limits[i].bytes),
                limits.memory_limits[i].by);
  }
  if (limits.cpus) {
    section.row("processors", fmt::format("{:.4g} threads", *limits.cpus), limits.cpus.note);
  }
  for (std::size_t i = 1; i < limits.cpu_limits.size(); ++i) {
    section.row("further limit", fmt::format("{:.4g} threads", limits.cpu_limits[i].cpus),
                limits.cpu_limits[i].by);
  }
  section.figure("/dev/shm", limits.shared_memory);
  if (!limits.cgroup.empty()) section.row("control groups", limits.cgroup);
  if (!limits.container.empty()) section.row("container", limits.container);
  if (!limits.scheduler.empty()) section.row("scheduler", limits.scheduler);
  return section.text();
}

std::string drives_text(const facts::Topology& t, const Paint& paint) {
  Section section(paint, "Drives");
  for (const facts::Drive& drive : t.drives) {
    std::string kind = drive.rotational ? (*drive.rotational ? "rotating" : "solid state") : "";
    if (drive.numa_node) kind += fmt::format(", NUMA node {}", *drive.numa_node);
    std::string name = drive.name;
    if (!drive.model.empty()) name += "  " + drive.model;
    section.row(paint.outside(name), known(drive.size), kind);
  }
  return section.text();
}

// Memory file systems of the system itself would fill the screen.
bool worth_a_line(const facts::Mount& mount) {
  const bool memory = mount.filesystem == "tmpfs" || mount.filesystem == "ramfs";
  return !memory && mount.filesystem != "vfat" && !mount.path.starts_with("/etc/") &&
         !mount.path.starts_with("/boot") && !mount.path.starts_with("/snap/");
}

std::string mounts_text(const facts::Topology& t, const Paint& paint) {
  Section section(paint, "File systems");
  for (const facts::Mount& mount : t.mounts) {
    if (!worth_a_line(mount)) continue;
    std::string how = mount.network         ? "of another machine"
                      : mount.drive.empty() ? ""
                                            : "on " + mount.drive;
    if (mount.read_only) how += how.empty() ? "read only" : ", read only";
    section.row(paint.outside(mount.path), fmt::format("{} {}", mount.filesystem, mount.source),
                how);
  }
  return section.text();
}

std::string network_text(const facts::Topology& t, const Paint& paint) {
  Section section(paint, "Network");
  for (const facts::NetworkInterface& one : t.network) {
    std::string how = one.kind + (one.up ? "" : ", down");
    if (!one.driver.empty()) how += ", " + one.driver;
    if (one.numa_node) how += fmt::format(", NUMA node {}", *one.numa_node);
    section.row(paint.outside(one.name), known(one.speed), how);
  }
  return section.text();
}

}  // namespace

std::string topology_text(const facts::Topology& topology, const Style& style) {
  const Paint paint(style);
  std::string text;
  text += processors_text(topology, paint);
  text += memory_text(topology, paint);
  text += limits_text_of(topology, paint);
  text += numa_text(topology, paint);
  text += gpus_text(topology, paint);
  text += drives_text(topology, paint);
  text += mounts_text(topology, paint);
  text += network_text(topology, paint);
  if (!topology.warnings.empty()) text += paint.ink("Warnings", Ink::strong) + "\n";
  for (const std::string& warning : topology.warnings) {
    std::string sign = "- ";
    for (const std::string& line : wrapped(paint.outside(warning), paint.columns() - 4)) {
      text += "  " + sign + line + "\n";
      sign = "  ";
    }
  }
  return text;
}

}  // namespace steelyard::report
