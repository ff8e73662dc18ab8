// Another machine of the catalogue: which ones are worth a plan is known from their figures.
#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "plan/candidates.h"

namespace steelyard::plan {

namespace {

using facts::BalanceVerdict;
using facts::Machine;

// Plans of further machines at most; the best of all by their figures come first.
constexpr std::size_t kMostMachines = 2;
// A machine must promise this much more for its money.
constexpr double kWorthwhile = 0.05;

bool holds(const Machine& machine, const facts::Plan& planned) {
  const facts::Gpu& gpu = machine.gpu;
  if (gpu.vendor != planned.machine.gpu.vendor || !gpu.memory) return false;
  if (*gpu.memory < planned.vram.fullest.peak_device_used) return false;
  // Of a bare card the host is the job's own; a machine of unknown memory is no advice.
  if (!machine.host.memory) return machine.kind == "bare-gpu";
  return *machine.host.memory >= planned.ram.peak;
}

// At most so many times as fast: by the slower of arithmetic and memory.
double speed_over(const facts::Gpu& one, const facts::Gpu& other) {
  const auto ratio = [](const auto& a, const auto& b) {
    return a && b && b->value() > 0.0 ? a->value() / b->value() : 1.0;
  };
  const auto& peak = one.peak.bf16 ? one.peak.bf16 : one.peak.fp16;
  const auto& other_peak = other.peak.bf16 ? other.peak.bf16 : other.peak.fp16;
  return std::min(ratio(peak, other_peak), ratio(one.memory_bandwidth, other.memory_bandwidth));
}

bool has_idle_parts(const facts::Plan& planned) {
  return std::ranges::any_of(planned.balance.verdicts, [](BalanceVerdict verdict) {
    return verdict != BalanceVerdict::balanced;
  });
}

Candidate moved_to(Machine machine, const facts::Plan& planned) {
  const bool bare = machine.kind == "bare-gpu";
  const std::int64_t gpus = *planned.job.machine.gpus;
  Candidate made;
  const std::string ram =
      machine.host.memory ? fmt::format(", {} of RAM", to_text(*machine.host.memory)) : "";
  made.what =
      fmt::format("use {}{} x {}{}", bare ? "" : machine.name + ": ", gpus, machine.gpu.name, ram);
  made.set = {{bare ? "machine.gpu" : "machine.name", machine.id},
              {"machine.gpus", fmt::format("{}", gpus)}};
  made.apply = [bare, id = machine.id, gpus](facts::Job& job) {
    (bare ? job.machine.gpu : job.machine.name) = id;
    job.machine.gpus = gpus;
  };
  made.effort = facts::AdviceEffort::machine;
  made.machine = std::move(machine);
  return made;
}

}  // namespace

std::vector<Candidate> other_machines(const Request& request, const facts::Plan& planned) {
  std::vector<Candidate> list;
  if (!request.alternatives) return list;
  const auto& price = planned.machine.price;
  const bool fits = planned.fits();
  if (fits && (!price || !has_idle_parts(planned))) return list;
  std::vector<Machine> all = request.alternatives();
  std::erase_if(all, [&](const Machine& machine) {
    if (!holds(machine, planned)) return true;
    if (!price) return machine.price.has_value();
    return !machine.price || machine.price->currency != price->currency;
  });
  // What it costs: money for the work of an hour, else the memory of its cards.
  const auto costs = [&](const Machine& machine) {
    if (!machine.price) return machine.gpu.memory->real();
    return machine.price->per_hour / speed_over(machine.gpu, planned.machine.gpu);
  };
  if (fits) {
    std::erase_if(all, [&](const Machine& machine) {
      return costs(machine) > price->per_hour * (1.0 - kWorthwhile);
    });
  }
  std::ranges::stable_sort(all, {}, costs);
  for (Machine& machine : all) {
    if (list.size() == kMostMachines) break;
    list.push_back(moved_to(std::move(machine), planned));
  }
  return list;
}

}  // namespace steelyard::plan
