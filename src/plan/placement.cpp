#include "plan/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "base/format.h"
#include "facts/numa.h"
#include "plan/placement_words.h"

namespace steelyard::plan {
namespace {

using facts::NodeLoad;
using facts::NumaLayout;
using facts::NumaPlacement;
using facts::Plan;
using facts::RamCategory;
using facts::RankPlace;

// Whose memory a category is. The kernel's own and its daemons' lies anywhere; what one process
// makes lies where that first touches it: rank 0 gathers a checkpoint, reads a model for the
// others, and puts a dataset into the memory that all map.
enum class Owner { nobody, first_rank, each_rank };

Owner owner_of(RamCategory category, const facts::Job& job) {
  switch (category) {
    case RamCategory::system: return Owner::nobody;
    case RamCategory::dataset_cache:
      return job.data.cache_shared ? Owner::first_rank : Owner::each_rank;
    case RamCategory::model_load:
      return job.checkpoint.load == facts::CheckpointLoad::rank0 ? Owner::first_rank
                                                                 : Owner::each_rank;
    case RamCategory::checkpoint_staging: {
      const bool sharded = job.checkpoint.method == facts::CheckpointMethod::sharded_sync ||
                           job.checkpoint.method == facts::CheckpointMethod::sharded_async;
      return sharded ? Owner::each_rank : Owner::first_rank;
    }
    default: return Owner::each_rank;
  }
}

// One phase of a host, parted.
struct Parts {
  Bytes nobody, first_rank, each_rank;  // each_rank: of all of them together
};

Parts parts_of(const facts::RamBytes& phase, const facts::Job& job) {
  Parts parts;
  for (std::size_t i = 0; i < facts::kRamCategories; ++i) {
    switch (owner_of(static_cast<RamCategory>(i), job)) {
      case Owner::nobody: parts.nobody += phase.bytes[i]; break;
      case Owner::first_rank: parts.first_rank += phase.bytes[i]; break;
      case Owner::each_rank: parts.each_rank += phase.bytes[i]; break;
    }
  }
  return parts;
}

class Placing {
 public:
  Placing(const Plan& plan, NumaLayout layout)
      : plan_(plan), layout_(std::move(layout)), ranks_(std::ssize(layout_.node_of_gpu)) {}

  NumaPlacement run() {
    placement_.assumed = layout_.gpus_assumed;
    placement_.note = layout_words(layout_);
    for (std::size_t i = 0; i < layout_.nodes.size(); ++i) placement_.nodes.push_back(load_of(i));
    for (std::int64_t rank = 0; rank < ranks_; ++rank) placement_.ranks.push_back(place_of(rank));
    return std::move(placement_);
  }

 private:
  // What is on a node (or the nodes of a socket) in one phase.
  [[nodiscard]] Bytes held(const std::vector<std::size_t>& nodes, std::size_t phase) const {
    const Parts parts = parts_of(plan_.ram.phases[phase], plan_.job);
    const auto here = [&](std::size_t node) {
      return std::ranges::find(nodes, node) != nodes.end();
    };
    Bytes sum = ceil_divide(parts.nobody * std::ssize(nodes), std::ssize(layout_.nodes));
    if (here(layout_.node_of_gpu.front())) sum += parts.first_rank;
    return sum +
           ceil_divide(parts.each_rank * std::ranges::count_if(layout_.node_of_gpu, here), ranks_);
  }

  [[nodiscard]] std::pair<Bytes, facts::RamPhase> most_held(
      const std::vector<std::size_t>& nodes) const {
    std::pair<Bytes, facts::RamPhase> most;
    for (std::size_t phase = 0; phase < facts::kRamPhases; ++phase) {
      const Bytes now = held(nodes, phase);
      if (phase == 0 || now > most.first) most = {now, static_cast<facts::RamPhase>(phase)};
    }
    return most;
  }

  [[nodiscard]] NodeLoad load_of(std::size_t index) const {
    const facts::HostNode& node = layout_.nodes[index];
    NodeLoad load{.node = node.id,
                  .socket = *node.socket,
                  .memory = node.memory,
                  .cores = node.cores,
                  .cpus = node.cpus};
    for (std::int64_t rank = 0; rank < ranks_; ++rank) {
      if (layout_.node_of_gpu[static_cast<std::size_t>(rank)] == index) load.ranks.push_back(rank);
    }
    const auto names_on = [&](const std::vector<facts::NearNode>& things) {
      std::vector<std::string> names;
      for (const facts::NearNode& thing : things) {
        if (thing.node && *thing.node == node.id) names.push_back(thing.name);
      }
      return names;
    };
    load.nics = names_on(plan_.machine.host.numa.nics);
    load.drives = names_on(plan_.machine.host.numa.drives);
    std::tie(load.need, load.need_phase) = most_held({index});
    if (node.memory) load.fits = load.need <= *node.memory;
    return load;
  }

  [[nodiscard]] std::vector<std::size_t> nodes_of_socket(std::int64_t socket) const {
    std::vector<std::size_t> nodes;
    for (std::size_t i = 0; i < layout_.nodes.size(); ++i) {
      if (*layout_.nodes[i].socket == socket) nodes.push_back(i);
    }
    return nodes;
  }

  [[nodiscard]] bool have_room(const std::vector<std::size_t>& nodes) const {
    Bytes memory;
    for (const std::size_t node : nodes) {
      if (!layout_.nodes[node].memory) return false;
      memory += *layout_.nodes[node].memory;
    }
    return most_held(nodes).first <= memory;
  }

  // A rank and its loader processes each want a hardware thread.
  [[nodiscard]] bool short_of_threads(const NodeLoad& load) const {
    const auto threads = facts::threads_of_list(load.cpus);
    const std::int64_t each = 1 + std::max<std::int64_t>(0, plan_.job.data.workers.value_or(0));
    return threads && *threads < each * std::ssize(load.ranks);
  }

  [[nodiscard]] std::string ids(const std::vector<std::size_t>& nodes) const {
    std::vector<std::int64_t> numbers;
    for (const std::size_t node : nodes) numbers.push_back(layout_.nodes[node].id);
    return ranges(numbers);
  }

  // Its own interface among those of the node, else of the socket, else any.
  void find_nic(RankPlace& place) const {
    const auto& nics = plan_.machine.host.numa.nics;
    for (const int reach : {0, 1, 2}) {
      const auto in_reach = [&](const NodeLoad& load) {
        if (reach == 0) return load.node == place.node;
        return reach == 2 || load.socket == place.socket;
      };
      std::vector<const facts::NearNode*> near;
      for (const facts::NearNode& nic : nics) {
        const bool here = nic.node && std::ranges::any_of(placement_.nodes, [&](const auto& load) {
                            return load.node == *nic.node && in_reach(load);
                          });
        if (here) near.push_back(&nic);
      }
      if (near.empty()) continue;
      const auto before = static_cast<std::size_t>(
          std::ranges::count_if(placement_.ranks, [&](const RankPlace& other) {
            if (reach == 0) return other.node == place.node;
            return reach == 2 || other.socket == place.socket;
          }));
      place.nic = near[before % near.size()]->name;
      place.nic_near = reach < 2;
      return;
    }
  }

  [[nodiscard]] RankPlace place_of(std::int64_t rank) const {
    const std::size_t own = layout_.node_of_gpu[static_cast<std::size_t>(rank)];
    const NodeLoad& load = placement_.nodes[own];
    const std::vector<std::size_t> socket = nodes_of_socket(load.socket);
    RankPlace place{.rank = rank, .node = load.node, .socket = load.socket};
    find_nic(place);
    const std::vector<std::size_t> threads =
        short_of_threads(load) ? socket : std::vector<std::size_t>{own};
    place.numactl = "numactl --cpunodebind=" + ids(threads);
    place.strict = true;
    // Ranks of a node that is short fill the others of its socket, which are then nobody's own.
    const bool each_alone =
        std::ranges::all_of(socket, [&](std::size_t node) { return have_room({node}); });
    if (each_alone) {
      place.numactl += " --membind=" + ids({own});
    } else if (have_room(socket)) {
      place.numactl += " --membind=" + ids(socket);
    } else {
      place.strict = false;
      place.numactl += " --preferred=" + ids({own});
    }
    std::string list;
    for (const std::size_t node : threads) {
      const std::string& cpus = layout_.nodes[node].cpus;
      if (cpus.empty()) return place;
      list += (list.empty() ? "" : ",") + cpus;
    }
    place.taskset = "taskset -c " + list;
    return place;
  }

  const Plan& plan_;
  NumaLayout layout_;
  std::int64_t ranks_;
  NumaPlacement placement_;
};

// One direction of one link in a step: the data path's bytes at the job's pace, and what GPUs
// exchange with the memory of ranks that run anywhere.
void add_crossing(const Plan& plan, const facts::SocketShares& shares, double transferred,
                  NumaPlacement& placement) {
  const facts::NumaPlan& feed = plan.feed.numa;
  if (!plan.pace.step || !feed.link || feed.link->value() <= 0.0) return;
  const auto loaded = [&](const std::optional<BytesPerSecond>& rate) {
    return rate ? rate->value() * plan.pace.step->value() : 0.0;
  };
  const double exchanged =
      transferred * static_cast<double>(placement.ranks.size()) * shares.to_gpus;
  placement.crossing_bytes = loaded(feed.crosses) + (feed.bound ? 0.0 : exchanged);
  placement.crossing_bytes_bound = loaded(feed.crosses_bound);
  placement.crossing = Seconds(*placement.crossing_bytes / feed.link->value());
  placement.crossing_bound = Seconds(*placement.crossing_bytes_bound / feed.link->value());
}

// Bytes between one rank's GPU and its host memory in a step, both ways.
double transferred_by(const step::Program& program) {
  double sum = 0.0;
  for (const step::Pass& pass : program.step) {
    step::for_each_phase(pass, [&](const step::Phase& phase) {
      for (const step::Body& body : phase.bodies) {
        double once = 0.0;
        for (const step::Event& event : body.events) {
          if (event.kind != step::EventKind::work) continue;
          const step::Work& work = program.work[static_cast<std::size_t>(event.index)];
          if (work.kind == step::WorkKind::transfer || work.kind == step::WorkKind::fetch) {
            once += work.traffic.real();
          }
        }
        sum += once * static_cast<double>(body.repeat) * static_cast<double>(pass.repeat);
      }
    });
  }
  return sum;
}

}  // namespace

NumaPlacement placement_of(const Plan& plan, double transferred) {
  const std::int64_t ranks = std::max<std::int64_t>(1, plan.job.machine.gpus.value_or(1));
  NumaLayout layout = facts::numa_layout(plan.machine, ranks);
  NumaPlacement placement;
  if (layout.nodes.size() < 2) return placement;
  const facts::SocketShares shares = facts::socket_shares(layout);
  placement = Placing(plan, std::move(layout)).run();
  add_crossing(plan, shares, transferred, placement);
  add_remarks(plan, placement);
  return placement;
}

bool nodes_have_room(const Plan& plan) {
  const facts::MachineKeys& keys = plan.job.machine;
  return !keys.numa_binding || keys.numa_memory != facts::NumaMemory::strict ||
         plan.numa.short_node() == nullptr;
}

void place_ranks(const step::Program& program, Plan& plan) {
  plan.numa = placement_of(plan, transferred_by(program));
  if (plan.fits_ram.value_or(true) && !nodes_have_room(plan)) plan.fits_ram = false;
  if (!plan.job.machine.numa_binding) return;
  if (const facts::NodeLoad* node = plan.numa.short_node()) {
    plan.warnings.push_back(fmt::format(
        "NUMA node {} lacks {} for the memory of its ranks: {}", node->node,
        to_text(node->need - *node->memory),
        nodes_have_room(plan) ? "it lies on other nodes (--preferred); --membind would kill them"
                              : "machine.numa_memory = \"strict\" kills them"));
  }
}

}  // namespace steelyard::plan
