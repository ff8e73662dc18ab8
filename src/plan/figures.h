// One job planned once: every figure of the plan but the advice, which needs further plans.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "base/error.h"
#include "facts/plan.h"
#include "model/graph.h"
#include "plan/graphs.h"
#include "plan/plan.h"
#include "plan/ranks.h"

namespace steelyard::plan {

// What the GPUs run, before anything is measured.
struct Prepared {
  Ranks ranks;
  GraphRef graph;  // of one micro-batch of the whole model
};

// Errors: those of `ranks_of`.
[[nodiscard]] Result<std::shared_ptr<const Prepared>> prepare(const Request& request);

// What a further plan beside a first one may leave out.
struct Shortcuts {
  // The same programs, for a job that differs in keys of the host alone.
  std::shared_ptr<const Prepared> prepared = {};
  // A plan of the same program on the same GPUs, whose VRAM is then this one's too.
  const facts::Plan* alike = nullptr;
  // Asked when everything but VRAM is known: where it says no, VRAM stays unknown. The allocator's
  // replay is by far the longest part of a plan.
  std::function<bool(const facts::Plan&)> is_promising = {};
  // Where the GPUs' memory does not suffice, only that is wanted, not by how much.
  bool only_if_fits = false;
  // Kinds of ranks are replayed in their order up to the first that has too little memory, which
  // then is told as the fullest.
  bool until_short = false;
  // The pace of a plan of the same programs, before the step waits for data.
  const facts::PacePlan* pace = nullptr;
  // Only what layouts are compared by: the step and the host's memory.
  bool comparable_only = false;
};

[[nodiscard]] Result<facts::Plan> figures(const Request& request, const Shortcuts& shortcuts = {});

// What `figures` with comparable_only says of each of `jobs`, which are one for the GPUs: programs
// and their times are made once. `request`: of any of them, but for its job.
[[nodiscard]] std::vector<Result<facts::Plan>> compared(Request& request,
                                                        const std::vector<facts::Job>& jobs);

}  // namespace steelyard::plan
