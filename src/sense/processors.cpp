#include "sense/processors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "sense/words.h"

namespace steelyard::sense {
namespace {

using facts::Known;
using facts::Provenance;

constexpr const char* kCpus = "/sys/devices/system/cpu";

// Arm's processors have numbers in /proc/cpuinfo, no names ("Main ID Register" of each core's
// reference manual; the same table is lscpu's).
struct ArmPart {
  std::string_view implementer, part, name;
};
constexpr std::array kArmParts = {
    ArmPart{"0x41", "0xd08", "Arm Cortex-A72"},  ArmPart{"0x41", "0xd0c", "Arm Neoverse-N1"},
    ArmPart{"0x41", "0xd40", "Arm Neoverse-V1"}, ArmPart{"0x41", "0xd49", "Arm Neoverse-N2"},
    ArmPart{"0x41", "0xd4f", "Arm Neoverse-V2"}, ArmPart{"0x41", "0xd83", "Arm Neoverse-V3AE"},
    ArmPart{"0x41", "0xd84", "Arm Neoverse-V3"}, ArmPart{"0x41", "0xd8e", "Arm Neoverse-N3"},
    ArmPart{"0x46", "0x001", "Fujitsu A64FX"},   ArmPart{"0x48", "0xd01", "HiSilicon TSV110"},
    ArmPart{"0xc0", "0xac3", "Ampere-1"},        ArmPart{"0xc0", "0xac4", "Ampere-1a"},
};

// Instruction sets that copying, decoding and arithmetic on the host use, as cpuinfo spells them.
constexpr std::array kVectorSets = {"avx2",        "avx512f",  "avx512_bf16", "avx512_fp16",
                                    "avx512_vnni", "amx_tile", "asimd",       "sve",
                                    "sve2",        "bf16"};

std::string model_of(std::string_view cpuinfo) {
  if (const auto name = value_in(cpuinfo, "model name")) return std::string(*name);
  const auto implementer = value_in(cpuinfo, "CPU implementer");
  const auto part = value_in(cpuinfo, "CPU part");
  if (implementer && part) {
    for (const ArmPart& known : kArmParts) {
      if (known.implementer == *implementer && known.part == *part) return std::string(known.name);
    }
    return fmt::format("Arm processor, implementer {}, part {}", *implementer, *part);
  }
  return std::string(value_in(cpuinfo, "cpu").value_or(std::string_view()));  // POWER
}

std::vector<std::string_view> flags_of(std::string_view cpuinfo) {
  const auto x86 = value_in(cpuinfo, "flags");
  return words_of(x86 ? *x86 : value_in(cpuinfo, "Features").value_or(std::string_view()));
}

std::vector<std::int64_t> online(const Tree& tree, std::string_view cpuinfo) {
  if (const auto list = tree.text(fmt::format("{}/online", kCpus))) return numbers_of_list(*list);
  std::vector<std::int64_t> found;
  for (const std::string_view line : lines_of(cpuinfo)) {
    const auto parts = split_at(line, ':');
    const auto number = parts && parts->first == "processor" ? whole(parts->second) : std::nullopt;
    if (number) found.push_back(*number);
  }
  return found;
}

// Where one kernel file stands for each processor.
std::optional<std::string> topology_file(const Tree& tree, std::int64_t cpu, const char* name) {
  return tree.text(fmt::format("{}/cpu{}/topology/{}", kCpus, cpu, name));
}

void count_by_sysfs(const Tree& tree, const std::vector<std::int64_t>& cpus,
                    facts::Processors& found) {
  std::set<std::string> packages, cores;
  for (const std::int64_t cpu : cpus) {
    if (auto package = topology_file(tree, cpu, "physical_package_id")) {
      packages.insert(std::move(*package));
    }
    auto siblings = topology_file(tree, cpu, "core_cpus_list");
    if (!siblings) siblings = topology_file(tree, cpu, "thread_siblings_list");
    if (siblings) cores.insert(std::move(*siblings));
  }
  const std::string from = fmt::format("{}/cpu*/topology", kCpus);
  const auto count = [&](const std::set<std::string>& set) -> Known<std::int64_t> {
    if (set.empty()) return {};
    return {static_cast<std::int64_t>(set.size()), Provenance::measured, from};
  };
  found.sockets = count(packages);
  found.cores = count(cores);
}

// x86 says socket and core of each processor in /proc/cpuinfo as well.
void count_by_cpuinfo(std::string_view cpuinfo, facts::Processors& found) {
  std::set<std::string> packages;
  std::set<std::pair<std::string, std::string>> cores;
  std::string package;
  for (const std::string_view line : lines_of(cpuinfo)) {
    const auto parts = split_at(line, ':');
    if (!parts || !whole(parts->second)) continue;
    if (parts->first == "physical id") packages.insert(package = std::string(parts->second));
    if (parts->first == "core id") cores.emplace(package, std::string(parts->second));
  }
  const auto count = [](std::size_t size) -> Known<std::int64_t> {
    if (size == 0) return {};
    return {static_cast<std::int64_t>(size), Provenance::measured, "/proc/cpuinfo"};
  };
  if (!found.sockets) found.sockets = count(packages.size());
  if (!found.cores) found.cores = count(cores.size());
}

// "512K", "32M": the kernel writes caches in KiB, some versions in MiB.
std::optional<Bytes> cache_size(std::string_view text) {
  if (text.empty()) return std::nullopt;
  std::int64_t unit = 1;
  if (text.back() == 'K') unit = 1024;
  if (text.back() == 'M') unit = 1024 * 1024;
  if (unit != 1) text.remove_suffix(1);
  const auto number = whole(text);
  if (!number || *number < 0 || *number > (std::int64_t{1} << 40)) return std::nullopt;
  return Bytes(*number * unit);
}

// Each cache is described below every processor that shares it; it is read below the first one.
std::vector<facts::CpuCache> caches(const Tree& tree, const std::vector<std::int64_t>& cpus) {
  std::vector<facts::CpuCache> found;
  std::map<std::string, std::set<std::int64_t>> covered;  // by index folder
  for (const std::int64_t cpu : cpus) {
    const std::string folder = fmt::format("{}/cpu{}/cache", kCpus, cpu);
    for (const std::string& index : tree.names(folder)) {
      if (!index.starts_with("index") || covered[index].contains(cpu)) continue;
      const std::string cache = folder + "/" + index;
      const auto level = tree.number(cache + "/level");
      const auto kind = tree.text(cache + "/type");
      const auto size = cache_size(tree.text(cache + "/size").value_or(""));
      const auto shared = numbers_of_list(tree.text(cache + "/shared_cpu_list").value_or(""));
      covered[index].insert(shared.begin(), shared.end());
      if (!level || !kind || !size || shared.empty()) continue;
      facts::CpuCache one{.level = *level,
                          .kind = *kind,
                          .size = *size,
                          .instances = 1,
                          .threads = static_cast<std::int64_t>(shared.size())};
      std::transform(one.kind.begin(), one.kind.end(), one.kind.begin(),
                     [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
      const auto same = std::find_if(found.begin(), found.end(), [&](const facts::CpuCache& other) {
        return other.level == one.level && other.kind == one.kind && other.size == one.size &&
               other.threads == one.threads;
      });
      if (same == found.end()) {
        found.push_back(std::move(one));
      } else {
        ++same->instances;
      }
    }
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.level < b.level; });
  return found;
}

std::vector<std::string> governors(const Tree& tree) {
  const std::string folder = fmt::format("{}/cpufreq", kCpus);
  std::set<std::string> found;
  for (const std::string& policy : tree.names(folder)) {
    auto governor = tree.text(fmt::format("{}/{}/scaling_governor", folder, policy));
    if (governor) found.insert(std::move(*governor));
  }
  return {found.begin(), found.end()};
}

}  // namespace

facts::Processors processors(const Tree& tree) {
  const std::string cpuinfo = tree.text("/proc/cpuinfo").value_or("");
  const std::vector<std::int64_t> cpus = online(tree, cpuinfo);
  facts::Processors found;
  found.model = model_of(cpuinfo);
  if (!cpus.empty()) {
    found.threads = {static_cast<std::int64_t>(cpus.size()), Provenance::measured,
                     fmt::format("{}/online", kCpus)};
  }
  count_by_sysfs(tree, cpus, found);
  count_by_cpuinfo(cpuinfo, found);
  found.caches = caches(tree, cpus);
  const std::vector<std::string_view> flags = flags_of(cpuinfo);
  const auto has = [&](std::string_view flag) {
    return std::find(flags.begin(), flags.end(), flag) != flags.end();
  };
  for (const char* set : kVectorSets) {
    if (has(set)) found.vector_sets.emplace_back(set);
  }
  found.virtual_machine = has("hypervisor");
  found.governors = governors(tree);
  return found;
}

}  // namespace steelyard::sense
