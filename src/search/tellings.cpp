#include "search/tellings.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/format.h"

namespace steelyard::search {

namespace {

using facts::Plan;

constexpr double kGib = 1024.0 * 1024.0 * 1024.0;

bool exceeds(Bytes bytes, const std::optional<double>& gib) {
  return gib && bytes.real() > *gib * kGib;
}

}  // namespace

double lack_of(const Plan& plan) {
  double lack = 0.0;
  const auto more = [&lack](Bytes needed, const facts::Known<Bytes>& there) {
    if (there && there->value() > 0) lack = std::max(lack, (needed / *there).value());
  };
  more(plan.vram.fullest.peak_device_used, plan.vram.capacity);
  more(plan.ram.peak, plan.ram.capacity);
  if (const facts::NodeLoad* node = plan.short_node()) more(node->need, node->memory);
  return lack;
}

std::string why_not(const Plan& plan, const Within& within) {
  std::string why;
  const auto add = [&why](const std::string& part) { why += (why.empty() ? "" : "; ") + part; };
  const Bytes vram = plan.vram.fullest.peak_device_used;
  const bool stages = plan.job.parallel.pipeline > 1 && !plan.vram.fullest.kind.empty();
  const std::string who = stages ? "each GPU of " + plan.vram.fullest.kind : "each GPU";
  if (plan.fits_vram == false && plan.vram.capacity) {
    add(fmt::format("{} needs {} of {}", who, to_text(vram), to_text(*plan.vram.capacity)));
  } else if (exceeds(vram, within.vram_gib)) {
    add(fmt::format("{} needs {}, more than vram_gib={}", who, to_text(vram), *within.vram_gib));
  }
  const facts::NodeLoad* node = plan.short_node();
  if (node != nullptr && node->memory) {
    add(fmt::format("the NUMA node {} needs {} of {} of host memory", node->node,
                    to_text(node->need), to_text(*node->memory)));
  } else if (plan.fits_ram == false && plan.ram.capacity) {
    add(fmt::format("each node needs {} of {} of host memory", to_text(plan.ram.peak),
                    to_text(*plan.ram.capacity)));
  }
  return why.empty() ? "does not fit" : "does not fit: " + why;
}

namespace {

// What grew most between two steps, in words; nothing where nothing did that one would see.
std::string what_slows(const facts::PaceBreakdown& fast, const facts::PaceBreakdown& slow) {
  const std::array<std::pair<const char*, Seconds facts::PaceBreakdown::*>, 8> parts = {{
      {"compute", &facts::PaceBreakdown::compute},
      {"memory-bound work", &facts::PaceBreakdown::memory_bound},
      {"exposed communication", &facts::PaceBreakdown::exposed_communication},
      {"bubbles", &facts::PaceBreakdown::bubble},
      {"the optimizer", &facts::PaceBreakdown::optimizer},
      {"offload", &facts::PaceBreakdown::offload},
      {"waiting for data", &facts::PaceBreakdown::data_stall},
      {"checkpoints", &facts::PaceBreakdown::checkpoint},
  }};
  const auto* most = &parts[0];
  for (const auto& part : parts) {
    const auto grown = [&](const auto& of) { return slow.*of.second - fast.*of.second; };
    if (grown(part) > grown(*most)) most = &part;
  }
  const Seconds grown = slow.*most->second - fast.*most->second;
  if (grown <= Seconds()) return {};
  return fmt::format(": {} more of {}", to_text(grown), most->first);
}

}  // namespace

std::string how_slow(const Plan& winner, const Plan& plan) {
  constexpr double kSeen = 0.0005;  // less shows as 0.0 %
  const double slower = plan.pace.step->value() / winner.pace.step->value() - 1.0;
  if (slower < kSeen) return "fits, as fast";
  return fmt::format("fits, {} slower{}", percent(Ratio(slower)),
                     what_slows(winner.pace.breakdown, plan.pace.breakdown));
}

std::string why_outside(const Plan& fastest, const Plan& leanest, const Within& within) {
  std::string why;
  const auto add = [&why](const std::string& part) { why += (why.empty() ? "" : "; ") + part; };
  const std::optional<Seconds>& step = fastest.pace.step;
  if (within.step && !step) add(fmt::format("its step is unknown (step={})", *within.step));
  if (within.step && step && step->value() > *within.step) {
    add(fmt::format("the fastest takes {} (step={})", to_text(*step), *within.step));
  }
  if (exceeds(leanest.ram.peak, within.ram_gib)) {
    add(fmt::format("the least host memory of a node is {} (ram_gib={})", to_text(leanest.ram.peak),
                    *within.ram_gib));
  }
  if (!why.empty()) return why;
  if (exceeds(fastest.vram.fullest.peak_device_used, within.vram_gib)) {
    return fmt::format("the fastest takes {} of each GPU (vram_gib={})",
                       to_text(fastest.vram.fullest.peak_device_used), *within.vram_gib);
  }
  return "no layout keeps to all of it at once";
}

std::string why_excluded(const Place& place, std::int64_t gpus, const Within& within) {
  const std::int64_t all = place.nodes * gpus;
  if (within.gpus && all > *within.gpus) {
    return fmt::format("{} GPUs, more than gpus={}", grouped(all), *within.gpus);
  }
  if (!within.price) return {};
  if (!place.machine.price) return fmt::format("no price is known (price={})", *within.price);
  const double price = place.machine.price->per_hour * static_cast<double>(place.nodes);
  if (price <= *within.price) return {};
  return fmt::format("{:.2f} {} per hour, more than price={}", price, place.machine.price->currency,
                     *within.price);
}

}  // namespace steelyard::search
