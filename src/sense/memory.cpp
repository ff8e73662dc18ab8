#include "sense/memory.h"

#include <fmt/format.h>

#include <set>
#include <string>
#include <utility>

#include "sense/words.h"

namespace steelyard::sense {
namespace {

using facts::Known;
using facts::Provenance;

constexpr const char* kNodes = "/sys/devices/system/node";
constexpr std::int64_t kLargestKib = std::int64_t{1} << 50;

// "  131072 kB"
std::optional<Bytes> kib(std::string_view text) {
  const auto words = words_of(text);
  const auto number = words.empty() ? std::nullopt : whole(words.front());
  if (!number || *number < 0 || *number > kLargestKib) return std::nullopt;
  return Bytes(*number * 1024);
}

Known<Bytes> of_meminfo(std::string_view meminfo, const char* key) {
  const auto value = value_in(meminfo, key);
  const auto bytes = value ? kib(*value) : std::nullopt;
  if (!bytes) return {};
  return {*bytes, Provenance::measured, fmt::format("/proc/meminfo, {}", key)};
}

// Lines of a node's meminfo begin with "Node 0 ".
Known<Bytes> of_node(const std::string& file, std::string_view text, std::string_view key) {
  for (const std::string_view line : lines_of(text)) {
    const auto parts = split_at(line, ':');
    if (!parts || !parts->first.ends_with(key)) continue;
    const auto words = words_of(parts->first);
    if (words.empty() || words.back() != key) continue;
    if (const auto bytes = kib(parts->second)) return {*bytes, Provenance::measured, file};
  }
  return {};
}

// The socket of a node's first processor, and its processors that share no core with an earlier
// one.
void add_processors(const Tree& tree, facts::NumaNode& node) {
  std::set<std::string> cores;
  for (const std::int64_t cpu : node.cpus) {
    const std::string folder = fmt::format("/sys/devices/system/cpu/cpu{}/topology", cpu);
    if (!node.socket) {
      const auto package = tree.number(folder + "/physical_package_id");
      if (package && *package >= 0) {
        node.socket = {*package, Provenance::measured, folder + "/physical_package_id"};
      }
    }
    auto siblings = tree.text(folder + "/core_cpus_list");
    if (!siblings) siblings = tree.text(folder + "/thread_siblings_list");
    if (siblings) cores.insert(std::move(*siblings));
  }
  if (cores.empty()) return;
  node.cores = {static_cast<std::int64_t>(cores.size()), Provenance::measured,
                "/sys/devices/system/cpu/cpu*/topology"};
}

facts::NumaNode node_of(const Tree& tree, std::int64_t id) {
  const std::string folder = fmt::format("{}/node{}", kNodes, id);
  facts::NumaNode node;
  node.id = id;
  node.cpus = numbers_of_list(tree.text(folder + "/cpulist").value_or(""));
  add_processors(tree, node);
  const std::string meminfo = tree.text(folder + "/meminfo").value_or("");
  node.memory = of_node(folder + "/meminfo", meminfo, "MemTotal");
  node.free = of_node(folder + "/meminfo", meminfo, "MemFree");
  const std::string distances = tree.text(folder + "/distance").value_or("");
  for (const std::string_view word : words_of(distances)) {
    if (const auto distance = whole(word)) node.distances.push_back(*distance);
  }
  return node;
}

std::vector<facts::HugePages> huge_pages(const Tree& tree) {
  const std::string folder = "/sys/kernel/mm/hugepages";
  std::vector<facts::HugePages> found;
  for (const std::string& name : tree.names(folder)) {
    std::string_view size = name;  // hugepages-2048kB
    if (!size.starts_with("hugepages-") || !size.ends_with("kB")) continue;
    size.remove_prefix(std::string_view("hugepages-").size());
    size.remove_suffix(2);
    const auto bytes = kib(size);
    const auto total = tree.number(fmt::format("{}/{}/nr_hugepages", folder, name));
    const auto free = tree.number(fmt::format("{}/{}/free_hugepages", folder, name));
    if (bytes && total) found.push_back({*bytes, *total, free.value_or(0)});
  }
  return found;
}

// "always [madvise] never": the chosen word stands in brackets.
std::string chosen(std::string_view text) {
  const std::size_t open = text.find('[');
  const std::size_t close = text.find(']');
  if (open == std::string_view::npos || close == std::string_view::npos || close < open) return {};
  return std::string(text.substr(open + 1, close - open - 1));
}

}  // namespace

std::set<std::int64_t> nodes_of_gpus(const Tree& tree) {
  std::set<std::int64_t> nodes;
  const std::string folder = "/proc/driver/nvidia/gpus";
  for (const std::string& gpu : tree.names(folder)) {
    const std::string status =
        tree.text(fmt::format("{}/{}/numa_status", folder, gpu)).value_or("");
    const auto node = value_in(status, "Node");
    const auto number = node ? whole(*node) : std::nullopt;
    if (number && *number >= 0) nodes.insert(*number);
  }
  return nodes;
}

std::vector<facts::NumaNode> numa_nodes(const Tree& tree) {
  const std::set<std::int64_t> gpus = nodes_of_gpus(tree);
  const std::string online = tree.text(fmt::format("{}/online", kNodes)).value_or("");
  std::vector<facts::NumaNode> nodes;
  for (const std::int64_t id : numbers_of_list(online)) {
    facts::NumaNode node = node_of(tree, id);
    node.of_gpu = node.cpus.empty() && gpus.contains(id);
    // The kernel lists nodes that could be filled later: Grace has eight for parts of each GPU.
    if (node.cpus.empty() && (!node.memory || node.memory->value() == 0)) continue;
    nodes.push_back(std::move(node));
  }
  return nodes;
}

facts::HostMemory host_memory(const Tree& tree, const std::vector<facts::NumaNode>& nodes) {
  const std::string meminfo = tree.text("/proc/meminfo").value_or("");
  facts::HostMemory memory;
  memory.total = of_meminfo(meminfo, "MemTotal");
  memory.available = of_meminfo(meminfo, "MemAvailable");
  memory.swap = of_meminfo(meminfo, "SwapTotal");
  Bytes of_gpus;
  for (const facts::NumaNode& node : nodes) {
    if (node.of_gpu && node.memory) of_gpus += *node.memory;
  }
  if (memory.total && of_gpus.value() > 0 && *memory.total > of_gpus) {
    memory.total = {*memory.total - of_gpus, Provenance::measured,
                    "/proc/meminfo, MemTotal without the nodes of GPUs"};
    if (memory.available && *memory.available > *memory.total) memory.available = {};
  }
  memory.huge_pages = huge_pages(tree);
  memory.transparent_huge_pages =
      chosen(tree.text("/sys/kernel/mm/transparent_hugepage/enabled").value_or(""));
  return memory;
}

}  // namespace steelyard::sense
