// A host with several sockets: where ranks belong, and what passes from one socket to another.
#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "facts/numa.h"
#include "feed/path.h"

namespace steelyard::feed {
namespace {

bool has_sockets(const Path& path) {
  const facts::Host& host = path.machine.host;
  return !host.numa.nodes.empty() || host.sockets.value.value_or(1) > 1;
}

// Bytes of one loaded sample that one direction of one link carries. Whoever reads a file first has
// it in its own memory, and any worker reads it in the next epoch; an unbound worker's batch and
// the rank's pinned copy of it lie where those happen to run, the GPU does not.
double crossing_bytes(const Path& path, const facts::SocketShares& shares, bool bound) {
  const bool reads = path.stored && path.job.data.cache != facts::DataCache::ram;
  const double stored = reads ? path.stored->real() : path.sample.real();
  if (bound) return stored * shares.bound;
  return (stored + path.sample.real()) * shares.scattered + path.copied.real() * shares.to_gpus;
}

std::string layout_text(const facts::NumaLayout& layout) {
  const std::string nodes = layout.nodes_assumed ? counted(layout.sockets, "socket")
                                                 : counted(std::ssize(layout.nodes), "NUMA node") +
                                                       " on " + counted(layout.sockets, "socket");
  return nodes + (layout.gpus_assumed ? "; GPUs taken in order over them" : "; GPUs as they hang");
}

}  // namespace

BytesPerSecond socket_link(const Path& path) {
  const auto& own = path.machine.host.socket_link;
  return own ? *own : path.constants.socket_link;
}

Seconds socket_seconds(const Path& path) {
  const BytesPerSecond link = socket_link(path);
  if (!has_sockets(path) || is_synthetic(path) || link.value() <= 0.0) return Seconds();
  const facts::NumaLayout layout = facts::numa_layout(path.machine, path.ranks);
  const facts::SocketShares shares = facts::socket_shares(layout);
  return Seconds(crossing_bytes(path, shares, path.job.machine.numa_binding) / link.value());
}

facts::NumaPlan numa(const Path& path, std::optional<SamplesPerSecond> rate) {
  facts::NumaPlan plan;
  if (!has_sockets(path)) return plan;
  const facts::NumaLayout layout = facts::numa_layout(path.machine, path.ranks);
  if (layout.sockets < 2) return plan;
  plan.bound = path.job.machine.numa_binding;
  for (std::size_t rank = 0; rank < layout.node_of_gpu.size(); ++rank) {
    plan.socket_of_rank.push_back(layout.socket_of_gpu(rank));
  }
  plan.link = socket_link(path);
  plan.note =
      fmt::format("{}; {} from socket to socket, {}", layout_text(layout), to_text(*plan.link),
                  path.machine.host.socket_link ? "of the machine" : "assumed");
  if (!rate || is_synthetic(path)) return plan;
  const double loaded = rate->value() * static_cast<double>(path.loads);
  const facts::SocketShares shares = facts::socket_shares(layout);
  plan.crosses = BytesPerSecond(loaded * crossing_bytes(path, shares, plan.bound));
  plan.crosses_bound = BytesPerSecond(loaded * crossing_bytes(path, shares, true));
  return plan;
}

}  // namespace steelyard::feed
