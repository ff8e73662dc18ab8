// One `steelyard rehearse` in each of several processes: what they share before, and one report of
// all afterwards. Without a crew nothing changes.
#pragma once

#include "facts/plan.h"
#include "facts/rehearsal.h"
#include "rehearse/rehearse.h"

namespace steelyard::cli {

// The processes of this host.
struct HostShare {
  std::int64_t hosts = 1;
  std::int64_t processes = 1;  // on this host
  std::int64_t index = 0;      // of this process among them
};
[[nodiscard]] Result<HostShare> host_share(rehearse::Crew* crew, Seconds patience);

// A node's accelerators, as the plan has them, divided by the processes of a host. Errors:
// impossible_combination when they cannot be.
[[nodiscard]] Result<std::int64_t> accelerators_of_each(std::int64_t of_node,
                                                        const HostShare& share);

// The least of what all processes say.
[[nodiscard]] Result<std::int64_t> least_of_all(rehearse::Crew* crew, std::int64_t own,
                                                Seconds patience);

// This process's rehearsal made that of all.
[[nodiscard]] Result<facts::Rehearsal> of_all(rehearse::Crew* crew, facts::Rehearsal own,
                                              Seconds patience);

// The plan's figures of one node times the nodes that were rehearsed; a note where the job has
// more.
void scale_planned(const facts::Plan& plan, facts::Rehearsal& rehearsal);

}  // namespace steelyard::cli
