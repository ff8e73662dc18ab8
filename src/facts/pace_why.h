// What `steelyard why JOB pace` says: the step of the busiest rank as a table and as a timeline.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/quantity.h"
#include "facts/enums.h"
#include "facts/plan.h"

namespace steelyard::facts {

// What limits a piece of work. launches: the host issues kernels slower than the GPU ends them.
// stages: a pipeline stage waits for another. data: the GPUs wait for samples.
enum class PaceBound {
  arithmetic,
  memory,
  launches,
  link,
  network,
  host_link,
  host_memory,
  stages,
  data,
  storage
};
STEELYARD_ENUM_NAMES(PaceBound, "arithmetic", "memory", "launches", "link", "network", "host_link",
                     "host_memory", "stages", "data", "storage")

// All of one operator in one phase and group of layers, over a whole step.
struct PaceRow {
  std::string phase;      // "forward", "backward", "optimizer", ...; empty: of the step as a whole
  std::string layer;      // "model.layers"; empty: of none
  std::string operation;  // "linear", "all_gather", "waiting for launches", ...
  PaceBound bound = PaceBound::arithmetic;
  std::int64_t count = 0;  // kernels, copies or collectives; 0: nothing that is launched
  Seconds busy;            // how long they run, also what runs beside something else
  Seconds step;            // what of it the step is longer for; these sum to the step
  bool recomputed = false;
};

// A piece of the timeline. Those that are `counted` follow each other without a gap and sum to the
// step; the others run beside them (communication, copies) or group them (phases, layers).
struct PaceSpan {
  std::string track;  // "phases", "layers", "GPU", "communication", "copies", "drive"
  std::string name, phase, layer;
  Seconds start, length;
  bool counted = false;
};

struct PaceHelp {
  std::string what;
  Seconds at_most;  // of a step
};

struct PaceWhy {
  std::string job;
  PacePlan pace;
  std::vector<PaceRow> rows;  // longest first
  std::vector<PaceSpan> spans;
  std::vector<PaceHelp> helps;  // what would shorten the step, largest first
};

}  // namespace steelyard::facts
