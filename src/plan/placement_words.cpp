#include "plan/placement_words.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"

namespace steelyard::plan {
namespace {

using facts::NodeLoad;
using facts::NumaPlacement;
using facts::Plan;

std::string_view when(facts::RamPhase phase) {
  switch (phase) {
    case facts::RamPhase::startup: return "at start-up";
    case facts::RamPhase::load: return "while loading";
    case facts::RamPhase::steady: return "while training";
    case facts::RamPhase::checkpoint: return "at a checkpoint";
  }
  return "";
}

std::string named(const char* noun, const std::vector<std::int64_t>& numbers) {
  return fmt::format("{}{} {}", noun, numbers.size() == 1 ? "" : "s", ranges(numbers));
}

std::string room_remark(const NumaPlacement& placement, const NodeLoad& load) {
  const auto of_node = std::ranges::find_if(
      placement.ranks, [&](const facts::RankPlace& rank) { return rank.node == load.node; });
  const std::string over =
      fmt::format("node {} has {} and its ranks would put {} there {}", load.node,
                  to_text(*load.memory), to_text(load.need), when(load.need_phase));
  if (of_node->strict) return over + ": bind their memory to all nodes of the socket";
  return fmt::format("{}: with --membind they would be killed, --preferred lets {} lie elsewhere",
                     over, to_text(load.need - *load.memory));
}

// Whose binding names more nodes than their own for threads.
void add_thread_remark(const Plan& plan, NumaPlacement& placement) {
  for (const NodeLoad& load : placement.nodes) {
    const auto threads = facts::threads_of_list(load.cpus);
    const std::int64_t each = 1 + plan.job.data.workers.value_or(0);
    if (!threads || *threads >= each * std::ssize(load.ranks)) continue;
    placement.remarks.push_back(fmt::format(
        "node {} has {} hardware threads for {} of {} processes each: their threads are bound to "
        "all nodes of socket {}",
        load.node, *threads, named("rank", load.ranks), each, load.socket));
    return;  // the others are alike
  }
}

void add_idle_remark(NumaPlacement& placement) {
  std::vector<std::int64_t> idle;
  Bytes memory;
  for (const NodeLoad& load : placement.nodes) {
    if (!load.ranks.empty()) continue;
    idle.push_back(load.node);
    if (load.memory) memory += *load.memory;
  }
  if (idle.empty()) return;
  placement.remarks.push_back(
      fmt::format("no rank is near {}{}: bound ranks leave {} unused", named("node", idle),
                  memory > Bytes() ? " with " + to_text(memory) : std::string(),
                  idle.size() == 1 ? "it" : "them"));
}

// What hangs on one socket while ranks are on others too.
void add_far_remark(const Plan& plan, NumaPlacement& placement) {
  std::vector<std::int64_t> far;
  for (const facts::RankPlace& place : placement.ranks) {
    if (!place.nic.empty() && !place.nic_near) far.push_back(place.rank);
  }
  if (!far.empty() && plan.job.machine.nodes > 1) {
    placement.remarks.push_back(
        fmt::format("no network interface is on the socket of {}: what {} to other hosts crosses "
                    "the link",
                    named("rank", far), far.size() == 1 ? "it sends" : "they send"));
  }
  std::vector<std::int64_t> with_drives;
  std::vector<std::int64_t> without;
  for (const facts::RankPlace& place : placement.ranks) {
    const bool near = std::ranges::any_of(placement.nodes, [&](const NodeLoad& load) {
      return load.socket == place.socket && !load.drives.empty();
    });
    (near ? with_drives : without).push_back(place.rank);
  }
  const bool known = std::ranges::any_of(placement.nodes,
                                         [](const NodeLoad& load) { return !load.drives.empty(); });
  if (known && !without.empty() && plan.job.data.location.value_or("nvme") == "nvme") {
    placement.remarks.push_back(
        fmt::format("no drive is on the socket of {}: what {} from storage crosses the link",
                    named("rank", without), without.size() == 1 ? "it reads" : "they read"));
  }
}

}  // namespace

std::string ranges(const std::vector<std::int64_t>& numbers) {
  std::string text;
  for (std::size_t i = 0; i < numbers.size();) {
    std::size_t last = i;
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
    text += fmt::format("{}{}", text.empty() ? "" : ",", numbers[i]);
    if (last > i) text += fmt::format("-{}", numbers[last]);
    i = last + 1;
  }
  return text;
}

std::string layout_words(const facts::NumaLayout& layout) {
  std::string words;
  if (layout.nodes_assumed) {
    words = fmt::format("{} sockets, one NUMA node each (assumed)", layout.sockets);
  } else {
    words = fmt::format("{} NUMA nodes on {} socket{}", layout.nodes.size(), layout.sockets,
                        layout.sockets == 1 ? "" : "s");
  }
  if (layout.gpus_assumed) words += "; GPUs in order over them (assumed)";
  return words;
}

void add_remarks(const Plan& plan, NumaPlacement& placement) {
  for (const NodeLoad& load : placement.nodes) {
    if (load.fits == false && !load.ranks.empty()) {
      placement.remarks.push_back(room_remark(placement, load));
    }
  }
  add_thread_remark(plan, placement);
  add_idle_remark(placement);
  add_far_remark(plan, placement);
  if (placement.assumed) {
    placement.remarks.emplace_back(
        "where the GPUs hang is not known: nvidia-smi topo -m says it, steelyard probe -o writes "
        "it into a machine file");
  }
}

}  // namespace steelyard::plan
