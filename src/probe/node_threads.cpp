#include <algorithm>
#include <charconv>
#include <map>
#include <string>

#include "probe/memory_bandwidth.h"

namespace steelyard::probe {

namespace {

// "0-3,8,10-11" as numbers; what cannot be read is left out.
std::vector<int> numbers_of(const std::string& list) {
  std::vector<int> numbers;
  const char* at = list.data();
  const char* const end = at + list.size();
  while (at < end) {
    int first = 0;
    auto read = std::from_chars(at, end, first);
    if (read.ec != std::errc()) break;
    int last = first;
    if (read.ptr < end && *read.ptr == '-') {
      read = std::from_chars(read.ptr + 1, end, last);
      if (read.ec != std::errc()) break;
    }
    for (int number = first; number <= last; ++number) numbers.push_back(number);
    at = read.ptr < end ? read.ptr + 1 : end;
  }
  return numbers;
}

// "98304K", "32M"
std::int64_t cache_bytes(const std::string& text) {
  std::int64_t size = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), size);
  if (read.ec != std::errc() || size < 0) return 0;
  const std::string unit(read.ptr, text.data() + text.size());
  if (unit == "K") return size << 10;
  if (unit == "M") return size << 20;
  return size;
}

}  // namespace

std::vector<NodeThreads> node_threads(const sense::Tree& tree, const std::vector<int>& allowed) {
  const std::string folder = "/sys/devices/system/node";
  std::vector<NodeThreads> nodes;
  const std::vector<int> with_memory = numbers_of(tree.text(folder + "/has_memory").value_or(""));
  for (const int number : numbers_of(tree.text(folder + "/online").value_or(""))) {
    const std::string cpus = folder + "/node" + std::to_string(number) + "/cpulist";
    NodeThreads node{.node = number};
    for (const int thread : numbers_of(tree.text(cpus).value_or(""))) {
      if (std::find(allowed.begin(), allowed.end(), thread) != allowed.end())
        node.threads.push_back(thread);
    }
    node.has_memory = with_memory.empty() || std::find(with_memory.begin(), with_memory.end(),
                                                       number) != with_memory.end();
    nodes.push_back(node);
  }
  const bool any = std::any_of(nodes.begin(), nodes.end(),
                               [](const NodeThreads& node) { return !node.threads.empty(); });
  if (!any) return {NodeThreads{.node = 0, .threads = allowed}};
  return nodes;
}

Bytes last_level_cache(const sense::Tree& tree, const std::vector<int>& allowed) {
  std::map<std::int64_t, std::map<std::string, std::int64_t>> sizes;  // level -> sharers -> bytes
  for (const int thread : allowed) {
    const std::string caches = "/sys/devices/system/cpu/cpu" + std::to_string(thread) + "/cache";
    for (const std::string& name : tree.names(caches)) {
      if (!name.starts_with("index")) continue;
      const std::string cache = caches + "/" + name;
      const std::string sharers = tree.text(cache + "/shared_cpu_list").value_or("");
      sizes[tree.number(cache + "/level").value_or(0)][sharers] =
          cache_bytes(tree.text(cache + "/size").value_or(""));
    }
  }
  std::int64_t total = 0;
  if (!sizes.empty()) {
    for (const auto& [sharers, bytes] : sizes.rbegin()->second) total += bytes;
  }
  return Bytes(total);
}

}  // namespace steelyard::probe
