// One job on several machines.
#include <cstdint>

#include "base/parallel.h"
#include "search/search.h"
#include "search/spread.h"
#include "search/words.h"

namespace steelyard::search {

namespace {

facts::MachineKeys keys_of(const std::string& named, const facts::Machine& machine,
                           const Spread& spread) {
  facts::MachineKeys keys;
  (machine.kind == "bare-gpu" ? keys.gpu : keys.name) = named;
  keys.nodes = spread.nodes;
  keys.gpus = spread.gpus;
  return keys;
}

}  // namespace

facts::MachinesCompared compare(const facts::Job& job, const facts::Plan& planned,
                                const std::vector<std::pair<std::string, facts::Machine>>& machines,
                                const Planner& planner) {
  facts::MachinesCompared comparison;
  comparison.job = planned.job.name;
  comparison.gpus = planned.job.machine.nodes * planned.job.machine.gpus.value_or(1);
  comparison.machines.resize(machines.size());
  for_each_side_by_side(machines.size(), [&](std::size_t i) {
    const auto& [named, machine] = machines[i];
    facts::ComparedMachine& line = comparison.machines[i];
    line.machine = named;
    const std::int64_t per_node =
        machine.kind == "bare-gpu" ? planned.job.machine.gpus.value_or(1) : machine.gpus;
    const std::optional<Spread> spread = spread_over(comparison.gpus, per_node);
    if (!spread) {
      line.refused = std::to_string(comparison.gpus) + " GPUs do not fill nodes of " +
                     std::to_string(per_node) + " evenly";
      return;
    }
    facts::Job moved = job;
    moved.machine = keys_of(named, machine, *spread);
    Result<facts::Plan> plan = planner(moved, Depth::full);
    if (plan) {
      line.plan = std::move(*plan);
    } else {
      line.refused = one_line(plan.error());
    }
  });
  return comparison;
}

}  // namespace steelyard::search
