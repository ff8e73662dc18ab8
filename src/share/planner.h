// How this room has its jobs planned: it does not know the planner.
#pragma once

#include <functional>
#include <string>

#include "base/error.h"
#include "facts/job.h"
#include "facts/machine.h"
#include "facts/plan.h"

namespace steelyard::share {

// Everything; or nothing of the GPUs' memory, which takes by far the longest.
enum class Depth { full, without_vram };

// A plan, without advice, of a changed job on `machine` (whatever the job's keys say of it but
// nodes and GPUs). Called side by side: it may share nothing that it writes.
using Planner = std::function<Result<facts::Plan>(const facts::Job& job,
                                                  const facts::Machine& machine, Depth depth)>;

// The job as it goes to another machine: what it says about its own does not move with it.
[[nodiscard]] inline facts::Job moved(facts::Job job, std::int64_t nodes, std::int64_t gpus) {
  const bool bound = job.machine.numa_binding;
  job.machine = {};
  job.machine.nodes = nodes;
  job.machine.gpus = gpus;
  job.machine.numa_binding = bound;
  // Another number of GPUs means another number of replicas.
  const facts::ParallelKeys& parallel = job.parallel;
  const std::int64_t replica = parallel.tensor * parallel.pipeline * parallel.context;
  if (parallel.data && nodes * gpus != *parallel.data * replica) {
    job.parallel.data.reset();
    job.parallel.shard_group.reset();
  }
  return job;
}

// An error as a part of a table.
[[nodiscard]] inline std::string one_line(const Error& error) {
  std::string text = error.subject;
  if (!error.found.empty()) text += ": found " + error.found;
  if (!error.accepted.empty()) text += "; accepted: " + error.accepted;
  return text;
}

}  // namespace steelyard::share
