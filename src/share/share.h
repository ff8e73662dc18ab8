// The first header of the room: several jobs on one server. How a job is planned is the caller's;
// what comes out does not depend on the order of the jobs nor on the number of threads.
// docs/share.md
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "facts/share.h"
#include "share/planner.h"

namespace steelyard::share {

struct SharingJob {
  facts::Job job{};    // as read
  std::string file{};  // jobs of one file read the same dataset
  std::int64_t copies = 1;
  std::optional<std::int64_t> gpus{};  // of each copy; none: the job's own, or all of the machine
  Planner planner{};
};

struct ShareQuestion {
  facts::Machine machine{};
  std::vector<SharingJob> jobs{};
  BytesPerSecond assumed_storage{};      // of storage whose rate is unknown, as the planner has it
  bool time_slice = false;               // jobs may take turns on a GPU
  std::optional<facts::MigTable> mig{};  // jobs of one GPU may have an instance of it
};

[[nodiscard]] facts::SharePlan share(const ShareQuestion& question);

}  // namespace steelyard::share
