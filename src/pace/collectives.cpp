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

// What every link carries: bytes over the GPU's link inside its node, and over its own network
// card.
struct Loads {
  double inside = 0.0, between = 0.0;
  Seconds latency;
};

// Rings: the share of the buffer passes each link. Each GPU of a node drives its own rail: as many
// rings as ranks of the group on the node.
Loads of_rings(const Communication& communication, double per_node, double nodes,
               const EfficiencyConstants& efficiency) {
  const double bytes =
      share_over_link(communication.kind, static_cast<double>(communication.ranks)) *
      communication.payload.real();
  const double turns = rounds(communication.kind);
  const double crossing = turns * (nodes - 1.0);
  const double staying = turns * static_cast<double>(communication.ranks - 1) - crossing;
  return {bytes, bytes / per_node,
          staying * efficiency.collective_latency + crossing * efficiency.network_latency};
}

// Every rank sends each other one its part, all at once: those on its node over the GPU link, the
// others over its own network card. The payload is what one rank sends.
Loads of_exchange(const Communication& communication, double per_node, double nodes,
                  const EfficiencyConstants& efficiency) {
  const double ranks = static_cast<double>(communication.ranks);
  const double part = communication.payload.real() / ranks;
  const Seconds far = nodes > 1.0 ? efficiency.network_latency : Seconds();
  return {part * (per_node - 1.0), part * (ranks - per_node), efficiency.collective_latency + far};
}

std::int64_t on_a_node(const Communication& communication) {
  return std::clamp(communication.ranks_per_node, std::int64_t{1}, communication.ranks);
}

Loads loads_of(const Communication& communication, const EfficiencyConstants& efficiency) {
  const std::int64_t per_node = on_a_node(communication);
  const std::int64_t nodes = ceil_divide(communication.ranks, per_node);
  return (communication.kind == Collective::all_to_all ? of_exchange : of_rings)(
      communication, static_cast<double>(per_node), static_cast<double>(nodes), efficiency);
}

}  // namespace

std::optional<Seconds> time_of(const Communication& communication, const facts::Machine& machine,
                               const EfficiencyConstants& efficiency, Missing& missing) {
  if (communication.ranks <= 1) return Seconds();
  const std::int64_t per_node = on_a_node(communication);
  const std::int64_t nodes = ceil_divide(communication.ranks, per_node);
  const Loads loads = loads_of(communication, efficiency);
  Seconds inside, between;
  bool known = true;
  if (per_node > 1) {
    if (const auto link = link_inside_node(machine.gpu, per_node, missing)) {
      const double reached = (link->through_host ? efficiency.host_peer : efficiency.link).value();
      inside = Seconds(loads.inside / (link->rate.value() * reached));
    } else {
      known = false;
    }
  }
  if (nodes > 1) {
    if (const auto rate = network(machine, missing)) {
      between = Seconds(loads.between / (rate->value() * efficiency.network.value()));
    } else {
      known = false;
    }
  }
  if (!known) return std::nullopt;
  // The pieces of a buffer are pipelined through both kinds of link: the slower one sets the time.
  return std::max(inside, between) + loads.latency;
}

double crowding_of(const Communication& communication, const facts::Machine& machine,
                   const EfficiencyConstants& efficiency, Seconds time) {
  const auto& memory = machine.gpu.memory_bandwidth;
  if (!memory || !(efficiency.overlap_traffic > Ratio(0.0)) || !(time > Seconds())) return 1.0;
  const Loads loads = loads_of(communication, efficiency);
  const double bytes = std::max(loads.inside, loads.between);
  return bytes / time.value() / (memory->value() * efficiency.overlap_traffic.value());
}

}  // namespace steelyard::pace
