// A host with several sockets: where ranks belong, and what passes from one socket to another.
#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "facts/host.h"
#include "feed/path.h"

namespace steelyard::feed {
namespace {

std::int64_t sockets_of(const Path& path) {
  return std::max<std::int64_t>(1, path.machine.host.sockets.value.value_or(1));
}

// Bytes of one loaded sample that lie on a random socket for whoever reads them next. Whoever reads
// a file first has it in its own memory, and any worker reads it in the next epoch; an unbound
// worker's batch and the rank's pinned copy of it lie where those happen to run, the GPU does not.
double scattered_bytes(const Path& path, bool bound) {
  const bool reads = path.stored && path.job.data.cache != facts::DataCache::ram;
  const double stored = reads ? path.stored->real() : path.sample.real();
  if (bound) return stored;
  return stored + path.sample.real() + path.handed_over.real();
}

}  // namespace

BytesPerSecond socket_link(const Path& path) {
  const auto& own = path.machine.host.socket_link;
  return own ? *own : path.constants.socket_link;
}

Seconds socket_seconds(const Path& path) {
  const std::int64_t sockets = sockets_of(path);
  const BytesPerSecond link = socket_link(path);
  if (sockets < 2 || is_synthetic(path) || link.value() <= 0.0) return Seconds();
  const double bytes = scattered_bytes(path, path.job.machine.numa_binding);
  return Seconds(bytes * facts::share_per_direction(sockets) / link.value());
}

facts::NumaPlan numa(const Path& path, std::optional<SamplesPerSecond> rate) {
  facts::NumaPlan plan;
  const std::int64_t sockets = sockets_of(path);
  if (sockets < 2) return plan;
  plan.bound = path.job.machine.numa_binding;
  const std::int64_t installed = std::max(path.machine.gpus, path.ranks);
  for (std::int64_t rank = 0; rank < path.ranks; ++rank) {
    plan.socket_of_rank.push_back(rank * sockets / installed);
  }
  plan.link = socket_link(path);
  plan.note = fmt::format("{} sockets; GPUs taken in order over them; {} from socket to socket, {}",
                          sockets, to_text(*plan.link),
                          path.machine.host.socket_link ? "of the machine" : "assumed");
  if (!rate || is_synthetic(path)) return plan;
  const double loaded = rate->value() * static_cast<double>(path.loads);
  const auto crossing = [&](bool bound) {
    return BytesPerSecond(loaded * scattered_bytes(path, bound) *
                          facts::share_per_direction(sockets));
  };
  plan.crosses = crossing(plan.bound);
  plan.crosses_bound = crossing(true);
  return plan;
}

}  // namespace steelyard::feed
