#include "facts/numa.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "facts/machine.h"

namespace steelyard::facts {
namespace {

std::optional<std::int64_t> whole(std::string_view text) {
  std::int64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, number);
  if (text.empty() || error != std::errc() || at != end || number < 0) return std::nullopt;
  return number;
}

// Linux numbers the nodes of one socket one after another (NPS4 of two EPYCs: 0 to 3, 4 to 7).
void fill_sockets(NumaLayout& layout, std::int64_t sockets) {
  const auto count = static_cast<std::int64_t>(layout.nodes.size());
  const bool known = std::ranges::all_of(
      layout.nodes, [](const HostNode& node) { return node.socket.value.has_value(); });
  if (!known) {
    const std::int64_t most = std::min(sockets, count);
    for (std::int64_t i = 0; i < count; ++i) {
      layout.nodes[static_cast<std::size_t>(i)].socket = {i * most / count, Provenance::assumed,
                                                          "nodes in order over the sockets"};
    }
  }
  std::map<std::int64_t, int> different;
  for (const HostNode& node : layout.nodes) ++different[*node.socket];
  layout.sockets = static_cast<std::int64_t>(different.size());
}

std::vector<HostNode> nodes_like_sockets(const Host& host, std::int64_t sockets) {
  std::vector<HostNode> nodes(static_cast<std::size_t>(sockets));
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    nodes[i].id = static_cast<std::int64_t>(i);
    nodes[i].socket = {nodes[i].id, Provenance::assumed, "one node per socket"};
    if (host.memory) {
      nodes[i].memory = {Bytes(host.memory->value() / sockets), Provenance::assumed,
                         "an equal part of the host's memory"};
    }
  }
  return nodes;
}

// The places of the first GPUs where the machine says all of them.
std::optional<std::vector<std::size_t>> known_places(const Host& host, std::int64_t gpus) {
  if (static_cast<std::int64_t>(host.numa.gpus.size()) < gpus) return std::nullopt;
  std::vector<std::size_t> places;
  for (std::size_t gpu = 0; gpu < static_cast<std::size_t>(gpus); ++gpu) {
    const Known<std::int64_t>& node = host.numa.gpus[gpu].node;
    const auto at = std::ranges::find_if(
        host.numa.nodes, [&](const HostNode& one) { return node && one.id == *node; });
    if (at == host.numa.nodes.end()) return std::nullopt;
    places.push_back(static_cast<std::size_t>(at - host.numa.nodes.begin()));
  }
  return places;
}

}  // namespace

std::optional<std::int64_t> threads_of_list(std::string_view list) {
  std::int64_t count = 0;
  while (true) {
    const std::size_t end = std::min(list.find(','), list.size());
    const std::string_view part = list.substr(0, end);
    const std::size_t dash = part.find('-');
    const auto first = whole(part.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : whole(part.substr(dash + 1));
    constexpr std::int64_t kMost = 1'000'000;
    if (!first || !last || *last < *first || *last > kMost) return std::nullopt;
    count += *last - *first + 1;
    if (end == list.size()) return count;
    list.remove_prefix(end + 1);
  }
}

NumaLayout numa_layout(const Machine& machine, std::int64_t gpus) {
  const Host& host = machine.host;
  const std::int64_t sockets = std::max<std::int64_t>(1, host.sockets.value.value_or(1));
  NumaLayout layout;
  layout.nodes_assumed = host.numa.nodes.empty();
  layout.nodes = layout.nodes_assumed ? nodes_like_sockets(host, sockets) : host.numa.nodes;
  fill_sockets(layout, sockets);
  if (auto places = known_places(host, gpus); places && !layout.nodes_assumed) {
    layout.node_of_gpu = std::move(*places);
    return layout;
  }
  layout.gpus_assumed = true;
  const auto nodes = static_cast<std::int64_t>(layout.nodes.size());
  const std::int64_t installed = std::max<std::int64_t>({machine.gpus, gpus, 1});
  for (std::int64_t gpu = 0; gpu < gpus; ++gpu) {
    layout.node_of_gpu.push_back(static_cast<std::size_t>(gpu * nodes / installed));
  }
  return layout;
}

SocketShares socket_shares(const NumaLayout& layout) {
  SocketShares shares;
  if (layout.sockets < 2 || layout.node_of_gpu.empty()) return shares;
  std::map<std::int64_t, double> on_socket;
  for (std::size_t gpu = 0; gpu < layout.node_of_gpu.size(); ++gpu) {
    on_socket[layout.socket_of_gpu(gpu)] += 1.0 / static_cast<double>(layout.node_of_gpu.size());
  }
  std::vector<double> most;
  for (const auto& [socket, share] : on_socket) most.push_back(share);
  std::ranges::sort(most, std::greater<>());
  const auto sockets = static_cast<double>(layout.sockets);
  shares.scattered = 1.0 / (sockets * sockets);
  shares.to_gpus = most[0] / sockets;
  if (most.size() > 1) shares.bound = most[0] * most[1];
  return shares;
}

}  // namespace steelyard::facts
