#include "rehearse/merge.h"

#include <algorithm>
#include <set>
#include <string>

#include "rehearse/faults.h"

namespace steelyard::rehearse {
namespace {

using facts::Rehearsal;

void add(facts::RehearsalStage& sum, const facts::RehearsalStage& part) {
  sum.threads += part.threads;
  // What a stage can do is only known of all when it is known of each.
  sum.can = sum.can && part.can ? std::optional(*sum.can + *part.can) : std::nullopt;
  sum.busy += part.busy;
  sum.waits_for_data += part.waits_for_data;
  sum.waits_for_room += part.waits_for_room;
  sum.cpu += part.cpu;
}

void add(std::vector<facts::RehearsalFault>& sum, const facts::RehearsalFault& part) {
  const auto same = std::find_if(sum.begin(), sum.end(), [&](const facts::RehearsalFault& fault) {
    return fault.kind == part.kind;
  });
  if (same == sum.end()) {
    sum.push_back(part);
    return;
  }
  same->count += part.count;
  for (const std::string& first : part.first) {
    if (same->first.size() < Faults::kNamed) same->first.push_back(first);
  }
}

void raise(std::optional<Ratio>& sum, const std::optional<Ratio>& part, bool least) {
  if (!sum || !part) {
    sum.reset();
  } else if (least) {
    sum = std::min(*sum, *part);
  } else {
    sum = *sum + *part;
  }
}

void add(Rehearsal& sum, const Rehearsal& part) {
  for (facts::RehearsalDevice device : part.devices) {
    device.accelerator += sum.setting.accelerators;
    sum.devices.push_back(std::move(device));
  }
  sum.setting.accelerators += part.setting.accelerators;
  sum.setting.workers += part.setting.workers;
  sum.setting.read_depth = std::max(sum.setting.read_depth, part.setting.read_depth);
  if (sum.setting.reader != part.setting.reader) sum.setting.reader = "io_uring and threads";
  sum.elapsed = std::max(sum.elapsed, part.elapsed);
  sum.samples += part.samples;
  sum.epochs += part.epochs;
  sum.rate += part.rate;
  sum.read_rate += part.read_rate;
  raise(sum.utilization_least, part.utilization_least, true);
  raise(sum.utilization_mean, part.utilization_mean, false);
  for (std::size_t i = 0; i < std::min(sum.stages.size(), part.stages.size()); ++i) {
    add(sum.stages[i], part.stages[i]);
  }
  for (const facts::RehearsalFault& fault : part.faults) add(sum.faults, fault);
  for (const std::string& note : part.notes) {
    if (std::find(sum.notes.begin(), sum.notes.end(), note) == sum.notes.end()) {
      sum.notes.push_back(note);
    }
  }
  if (part.crew) {
    sum.crew->ranks.insert(sum.crew->ranks.end(), part.crew->ranks.begin(), part.crew->ranks.end());
  }
}

void name_slowest(Rehearsal& all) {
  constexpr double kWorthNaming = 1e-3;
  const auto longest = std::max_element(
      all.crew->ranks.begin(), all.crew->ranks.end(),
      [](const auto& one, const auto& other) { return one.waits_for_data < other.waits_for_data; });
  if (longest == all.crew->ranks.end()) return;
  if (longest->waits_for_data > kWorthNaming * all.elapsed) all.crew->slowest = longest->rank;
}

// The slowest process's, which is what all wait for.
std::string limit_of(const std::vector<Rehearsal>& parts, const facts::RehearsalCrew& crew) {
  if (!crew.slowest) return {};
  return parts[static_cast<std::size_t>(*crew.slowest)].limited_by;
}

}  // namespace

Rehearsal merged(std::vector<Rehearsal> parts) {
  Rehearsal all = parts.front();
  if (!all.crew) all.crew.emplace();
  for (std::size_t i = 1; i < parts.size(); ++i) add(all, parts[i]);
  const double many = static_cast<double>(parts.size());
  all.epochs /= many;
  if (all.utilization_mean) all.utilization_mean = *all.utilization_mean / many;
  std::set<std::string> hosts;
  for (const facts::RehearsalRank& rank : all.crew->ranks) hosts.insert(rank.host);
  all.crew->hosts = static_cast<std::int64_t>(hosts.size());
  name_slowest(all);
  if (all.utilization_least) {
    all.limited_by = limit_of(parts, *all.crew);
  }
  return all;
}

}  // namespace steelyard::rehearse
