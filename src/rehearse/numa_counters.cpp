#include "rehearse/numa_counters.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <sstream>
#include <string>

namespace steelyard::rehearse {
namespace {

// The number behind "node" in a folder's name; nothing for other names.
std::optional<std::int64_t> node_of(const std::string& name) {
  constexpr std::string_view kNode = "node";
  if (!name.starts_with(kNode)) return std::nullopt;
  std::int64_t number = 0;
  const char* const end = name.data() + name.size();
  const auto [last, error] = std::from_chars(name.data() + kNode.size(), end, number);
  if (error != std::errc() || last != end) return std::nullopt;
  return number;
}

}  // namespace

NumaCounters::NumaCounters(sense::Tree tree) : tree_(std::move(tree)), before_(read()) {}

std::vector<facts::RehearsalNode> NumaCounters::read() const {
  const std::string folder = "/sys/devices/system/node";
  const Bytes page(sysconf(_SC_PAGESIZE));
  std::vector<facts::RehearsalNode> nodes;
  for (const std::string& name : tree_.names(folder)) {
    const auto number = node_of(name);
    const auto text = tree_.text(folder + "/" + name + "/numastat");
    if (!number || !text) continue;
    facts::RehearsalNode node;
    node.node = *number;
    std::istringstream words(*text);
    std::int64_t pages = 0;
    for (std::string key; words >> key >> pages;) {
      if (key == "local_node") node.local = page * pages;
      if (key == "other_node") node.remote = page * pages;
      if (key == "numa_foreign") node.missed = page * pages;
    }
    nodes.push_back(node);
  }
  std::sort(nodes.begin(), nodes.end(),
            [](const auto& one, const auto& other) { return one.node < other.node; });
  return nodes;
}

std::vector<facts::RehearsalNode> NumaCounters::since() const {
  std::vector<facts::RehearsalNode> nodes = read();
  for (facts::RehearsalNode& node : nodes) {
    for (const facts::RehearsalNode& before : before_) {
      if (before.node != node.node) continue;
      node.local = std::max(Bytes(0), node.local - before.local);
      node.remote = std::max(Bytes(0), node.remote - before.remote);
      node.missed = std::max(Bytes(0), node.missed - before.missed);
    }
  }
  return nodes;
}

}  // namespace steelyard::rehearse
