#include "cli/rehearse_together.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "codec/codec.h"
#include "codec/rehearsal.h"
#include "rehearse/merge.h"

namespace steelyard::cli {

Result<HostShare> host_share(rehearse::Crew* crew, Seconds patience) {
  if (crew == nullptr) return HostShare();
  STEELYARD_TRY(hosts, crew->gathered(crew->host(), patience));
  return HostShare{
      .hosts = static_cast<std::int64_t>(std::set<std::string>(hosts.begin(), hosts.end()).size()),
      .processes = std::count(hosts.begin(), hosts.end(), crew->host()),
      .index = std::count(hosts.begin(), hosts.begin() + static_cast<std::ptrdiff_t>(crew->rank()),
                          crew->host())};
}

Result<std::int64_t> accelerators_of_each(std::int64_t of_node, const HostShare& share) {
  if (of_node % share.processes == 0) return of_node / share.processes;
  return fail({.code = ErrorCode::impossible_combination,
               .subject = fmt::format("{} processes on a host", share.processes),
               .found = fmt::format("{} accelerators of a node", of_node),
               .accepted = "as many processes as divide them, or --accelerators of each"});
}

Result<std::int64_t> least_of_all(rehearse::Crew* crew, std::int64_t own, Seconds patience) {
  if (crew == nullptr) return own;
  STEELYARD_TRY(all, crew->gathered(std::to_string(own), patience));
  for (const std::string& one : all) {
    std::int64_t value = own;
    std::from_chars(one.data(), one.data() + one.size(), value);
    own = std::min(own, value);
  }
  return own;
}

Result<facts::Rehearsal> of_all(rehearse::Crew* crew, facts::Rehearsal own, Seconds patience) {
  if (crew == nullptr) return own;
  STEELYARD_TRY(all, crew->gathered(codec::to_json(codec::to_value(own), 0), patience));
  std::vector<facts::Rehearsal> parts;
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    const std::string name = fmt::format("the rehearsal of rank {}", rank);
    STEELYARD_TRY(value, codec::parse(all[rank], codec::Format::json, name));
    STEELYARD_TRY(part, codec::rehearsal_from(value, name));
    parts.push_back(std::move(part));
  }
  return rehearse::merged(std::move(parts));
}

void scale_planned(const facts::Plan& plan, facts::Rehearsal& rehearsal) {
  if (!rehearsal.crew || !rehearsal.planned) return;
  const double hosts = static_cast<double>(rehearsal.crew->hosts);
  auto& samples = rehearsal.planned->samples;
  if (samples) samples = *samples * hosts;
  for (facts::RehearsalStage& stage : rehearsal.stages) {
    if (stage.planned) stage.planned = *stage.planned * hosts;
  }
  if (plan.job.machine.nodes == rehearsal.crew->hosts) return;
  rehearsal.notes.push_back(
      fmt::format("the job has {} nodes, rehearsed on {}: planned samples are those of {}",
                  plan.job.machine.nodes, rehearsal.crew->hosts, rehearsal.crew->hosts));
}

}  // namespace steelyard::cli
