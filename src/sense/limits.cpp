#include "sense/limits.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace steelyard::sense {
namespace {

using facts::CpuLimit;
using facts::HostLimits;
using facts::Known;
using facts::MemoryLimit;
using facts::Provenance;

constexpr double kMebi = 1024.0 * 1024.0;

std::string file_of(const CgroupPath& group, const std::string& path, const char* name) {
  return group.mount + (path == "/" ? "" : path) + "/" + name;
}

std::string name_of(const CgroupPath& group, const std::string& path) {
  return fmt::format("cgroup {} {}", group.version_2 ? "v2" : "v1", path);
}

// "max" of version 2 is no number, and so no limit; version 1 writes 2^63 less a page.
void add_memory_groups(const Tree& tree, const std::vector<MountLine>& lines, HostLimits& limits) {
  const auto group = cgroup_of(tree, lines, "memory");
  if (!group) return;
  const char* file = group->version_2 ? "memory.max" : "memory.limit_in_bytes";
  const char* used = group->version_2 ? "memory.current" : "memory.usage_in_bytes";
  constexpr std::int64_t kNoLimit = std::int64_t{1} << 60;
  for (const std::string& path : upwards(*group)) {
    const auto bytes = tree.number(file_of(*group, path, file));
    if (!bytes || *bytes <= 0 || *bytes >= kNoLimit) continue;
    const auto now = tree.number(file_of(*group, path, used));
    const bool least = std::all_of(limits.memory_limits.begin(), limits.memory_limits.end(),
                                   [&](const MemoryLimit& m) { return m.bytes.value() > *bytes; });
    if (least && now) {
      limits.memory_used = {Bytes(*now), Provenance::measured, file_of(*group, path, used)};
    }
    limits.memory_limits.push_back({Bytes(*bytes), name_of(*group, path)});
  }
}

// Version 2: "max 100000" or "400000 100000"; version 1: two files, a quota of -1 is none.
std::optional<double> cpus_of_quota(const Tree& tree, const CgroupPath& group,
                                    const std::string& path) {
  std::optional<double> quota, period;
  if (group.version_2) {
    const std::string text = tree.text(file_of(group, path, "cpu.max")).value_or("");
    const std::vector<std::string_view> words = words_of(text);
    if (words.size() == 2) quota = real(words[0]), period = real(words[1]);
  } else {
    quota = real(tree.text(file_of(group, path, "cpu.cfs_quota_us")).value_or(""));
    period = real(tree.text(file_of(group, path, "cpu.cfs_period_us")).value_or(""));
  }
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  return *quota / *period;
}

void add_cpu_groups(const Tree& tree, const std::vector<MountLine>& lines, HostLimits& limits) {
  const auto group = cgroup_of(tree, lines, "cpu");
  if (!group) return;
  for (const std::string& path : upwards(*group)) {
    if (const auto cpus = cpus_of_quota(tree, *group, path)) {
      limits.cpu_limits.push_back({*cpus, name_of(*group, path) + ", quota"});
    }
  }
}

// cpusets, taskset and Slurm's binding all end in the mask of the process.
std::vector<std::int64_t> allowed_cpus(const Tree& tree) {
  const std::string status = tree.text("/proc/self/status").value_or("");
  return numbers_of_list(value_in(status, "Cpus_allowed_list").value_or(std::string_view()));
}

void add_allowed_cpus(const std::vector<std::int64_t>& allowed, HostLimits& limits) {
  if (allowed.empty()) return;
  limits.cpu_limits.push_back({static_cast<double>(allowed.size()),
                               fmt::format("allowed processors {}", list_of_numbers(allowed))});
}

// Two threads of one core are one core: those of the mask, and no more than a quota feeds.
Known<std::int64_t> usable_cores(const Tree& tree, const std::vector<std::int64_t>& allowed,
                                 const Known<double>& threads,
                                 const facts::Processors& processors) {
  std::set<std::string> cores;
  for (const std::int64_t cpu : allowed) {
    const std::string folder = fmt::format("/sys/devices/system/cpu/cpu{}/topology", cpu);
    auto siblings = tree.text(folder + "/core_cpus_list");
    if (!siblings) siblings = tree.text(folder + "/thread_siblings_list");
    if (siblings) cores.insert(std::move(*siblings));
  }
  Known<std::int64_t> usable = processors.cores;
  const auto masked = static_cast<std::int64_t>(cores.size());
  if (masked > 0 && usable && masked < *usable) {
    usable = {masked, Provenance::measured, "cores of the allowed processors"};
  }
  if (threads && usable && *threads < static_cast<double>(*usable)) {
    usable = {std::max<std::int64_t>(1, static_cast<std::int64_t>(*threads)), Provenance::derived,
              threads.note};
  }
  return usable;
}

std::optional<double> number_in(const Environment& environment, std::string_view name) {
  const auto found = environment.find(name);
  if (found == environment.end()) return std::nullopt;
  return leading_number(found->second);
}

// Memory in MiB per node, per processor or per GPU, as the job asked; 0 is all of the node.
std::optional<double> slurm_memory(const Environment& environment) {
  if (const auto node = number_in(environment, "SLURM_MEM_PER_NODE")) return node;
  const auto per_cpu = number_in(environment, "SLURM_MEM_PER_CPU");
  const auto cpus = number_in(environment, "SLURM_CPUS_ON_NODE");
  if (per_cpu && cpus) return *per_cpu * *cpus;
  const auto per_gpu = number_in(environment, "SLURM_MEM_PER_GPU");
  const auto gpus = number_in(environment, "SLURM_GPUS_ON_NODE");
  if (per_gpu && gpus) return *per_gpu * *gpus;
  return std::nullopt;
}

void add_slurm(const Environment& environment, HostLimits& limits) {
  const auto job = environment.find("SLURM_JOB_ID");
  if (job == environment.end()) return;
  limits.scheduler = "Slurm job " + job->second;
  constexpr double kMostMebi = 1e12;
  const auto memory = slurm_memory(environment);
  if (memory && *memory > 0 && *memory < kMostMebi) {
    limits.memory_limits.push_back({Bytes(checked_round(*memory * kMebi)), limits.scheduler});
  }
  const auto cpus = number_in(environment, "SLURM_CPUS_ON_NODE");
  if (cpus && *cpus > 0) limits.cpu_limits.push_back({*cpus, limits.scheduler});
}

bool in_environment(const Environment& environment, std::string_view name) {
  return environment.contains(name);
}

// The marks that the runtimes themselves leave.
std::string container_of(const Tree& tree, const Environment& environment) {
  const std::string groups = tree.text("/proc/self/cgroup").value_or("");
  const auto grouped = [&](std::string_view word) {
    return groups.find(word) != std::string::npos;
  };
  if (in_environment(environment, "KUBERNETES_SERVICE_HOST") || grouped("kubepods")) {
    return "kubernetes";
  }
  if (in_environment(environment, "APPTAINER_NAME")) return "apptainer";
  if (in_environment(environment, "SINGULARITY_NAME")) return "singularity";
  if (tree.exists("/run/.containerenv") || grouped("libpod")) return "podman";
  if (tree.exists("/.dockerenv") || grouped("/docker")) return "docker";
  if (grouped("/lxc")) return "lxc";
  // systemd's convention (systemd.io/CONTAINER_INTERFACE): nspawn, enroot and others write it.
  return tree.text("/run/systemd/container").value_or("");
}

// tmpfs shows its size only where it is not the default: half of the memory.
Known<Bytes> shared_memory(const std::vector<MountLine>& lines, const Known<Bytes>& total) {
  const MountLine* mount = nullptr;
  for (const MountLine& line : lines) {
    if (line.path == "/dev/shm") mount = &line;  // the last one lies on top
  }
  if (mount == nullptr || mount->filesystem != "tmpfs") return {};
  if (const auto size = size_option(mount->own_options)) {
    return {*size, Provenance::measured, "/proc/self/mountinfo, size of /dev/shm"};
  }
  if (!total) return {};
  return {Bytes(total->value() / 2), Provenance::derived, "half of the memory: tmpfs's default"};
}

std::string cgroup_version(const std::vector<MountLine>& lines) {
  bool one = false, two = false;
  for (const MountLine& line : lines) {
    one = one || (line.filesystem == "cgroup" && !line.own_options.ends_with("name=systemd"));
    two = two || line.filesystem == "cgroup2";
  }
  return one ? (two ? "hybrid" : "v1") : two ? "v2" : "";
}

// Smallest first, those above the machine left out: they hold nothing.
template <class Limit, class Size>
void put_in_order(std::vector<Limit>& limits, Size size, double most) {
  std::erase_if(limits, [&](const Limit& limit) { return size(limit) >= most; });
  std::stable_sort(limits.begin(), limits.end(),
                   [&](const Limit& a, const Limit& b) { return size(a) < size(b); });
}

}  // namespace

HostLimits host_limits(const Tree& tree, const Environment& environment,
                       const std::vector<MountLine>& lines, const facts::HostMemory& memory,
                       const facts::Processors& processors) {
  HostLimits limits;
  limits.cgroup = cgroup_version(lines);
  limits.container = container_of(tree, environment);
  add_memory_groups(tree, lines, limits);
  add_cpu_groups(tree, lines, limits);
  const std::vector<std::int64_t> allowed = allowed_cpus(tree);
  add_allowed_cpus(allowed, limits);
  add_slurm(environment, limits);
  limits.shared_memory = shared_memory(lines, memory.total);
  constexpr double kNone = 1e300;
  put_in_order(
      limits.memory_limits, [](const MemoryLimit& limit) { return limit.bytes.real(); },
      memory.total ? memory.total->real() : kNone);
  put_in_order(
      limits.cpu_limits, [](const CpuLimit& limit) { return limit.cpus; },
      processors.threads ? static_cast<double>(*processors.threads) : kNone);
  limits.memory = memory.total;
  if (!limits.memory_limits.empty()) {
    const MemoryLimit& least = limits.memory_limits.front();
    limits.memory = {least.bytes, Provenance::measured, "limit of " + least.by};
  } else {
    limits.memory_used = {};
  }
  if (processors.threads) {
    limits.cpus = {static_cast<double>(*processors.threads), processors.threads.from,
                   processors.threads.note};
  }
  if (!limits.cpu_limits.empty()) {
    const CpuLimit& least = limits.cpu_limits.front();
    limits.cpus = {least.cpus, Provenance::measured, "limit of " + least.by};
  }
  limits.cores = usable_cores(tree, allowed, limits.cpus, processors);
  return limits;
}

}  // namespace steelyard::sense
