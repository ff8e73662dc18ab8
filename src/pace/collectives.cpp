#include "pace/collectives.h"

#include <algorithm>

namespace steelyard::pace {
namespace {

using facts::EfficiencyConstants;
using step::Collective;
using step::Communication;

// The part of the buffer that passes each link of a ring of `ranks`, and how often.
double share_over_link(Collective kind, double ranks) {
  if (kind == Collective::send) return 1.0;
  const double once = (ranks - 1.0) / ranks;
  return kind == Collective::all_reduce ? 2.0 * once : once;
}

double rounds(Collective kind) {
  return kind == Collective::all_reduce ? 2.0 : 1.0;
}

}  // namespace

std::optional<Seconds> time_of(const Communication& communication, const facts::Machine& machine,
                               const EfficiencyConstants& efficiency, Missing& missing) {
  if (communication.ranks <= 1) return Seconds();
  const std::int64_t per_node =
      std::clamp(communication.ranks_per_node, std::int64_t{1}, communication.ranks);
  const std::int64_t nodes = ceil_divide(communication.ranks, per_node);
  const double payload = communication.payload.real();
  const double share =
      share_over_link(communication.kind, static_cast<double>(communication.ranks));

  Seconds inside, between;
  bool known = true;
  if (per_node > 1) {
    if (const auto link = link_inside_node(machine.gpu, missing)) {
      const double reached = (link->through_host ? efficiency.host_peer : efficiency.link).value();
      inside = Seconds(share * payload / (link->rate.value() * reached));
    } else {
      known = false;
    }
  }
  if (nodes > 1) {
    if (const auto rate = network(machine, missing)) {
      // Each GPU of a node drives its own rail: as many rings as ranks of the group on the node.
      const double rails = static_cast<double>(per_node);
      between = Seconds(share * payload / (rails * rate->value() * efficiency.network.value()));
    } else {
      known = false;
    }
  }
  if (!known) return std::nullopt;
  const double turns = rounds(communication.kind);
  const double crossing = turns * static_cast<double>(nodes - 1);
  const double staying = turns * static_cast<double>(communication.ranks - 1) - crossing;
  const Seconds latency =
      staying * efficiency.collective_latency + crossing * efficiency.network_latency;
  // The pieces of a buffer are pipelined through both kinds of link: the slower one sets the time.
  return std::max(inside, between) + latency;
}

}  // namespace steelyard::pace
