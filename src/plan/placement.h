// Which ranks of a host belong to which NUMA node, what each node then holds, what crosses between
// sockets and the commands that bind each rank. Rules: docs/model/host-memory.md, "NUMA".
#pragma once

#include "facts/plan.h"
#include "step/program.h"

namespace steelyard::plan {

// `transferred`: bytes between one rank's GPU and its host memory in a step, both ways together.
// Reads job, machine, ram, feed and pace of the plan; empty on a host with one node.
[[nodiscard]] facts::NumaPlacement placement_of(const facts::Plan& plan, double transferred);

// Of the job's own way to bind: false where a node has no room for ranks that may use no other.
[[nodiscard]] bool nodes_have_room(const facts::Plan& plan);

// Fills `numa` of a plan whose other figures are there, and what follows from it: fits_ram, a
// warning.
void place_ranks(const step::Program& program, facts::Plan& plan);

}  // namespace steelyard::plan
