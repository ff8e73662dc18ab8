// The first header of the room: dataset + machine + needed rate -> the data path.
#pragma once

#include <optional>

#include "base/error.h"
#include "facts/constants.h"
#include "facts/job.h"
#include "facts/machine.h"
#include "facts/plan.h"

namespace steelyard::feed {

struct Request {
  const facts::Job* job = nullptr;  // resolved
  const facts::Machine* machine = nullptr;
  const facts::HostConstants* constants = nullptr;
  Bytes sample_bytes;                      // one sample in host memory, ready for the GPU
  std::optional<Bytes> copied_bytes = {};  // what the GPU gets of it, where the host changes it
  // What all GPUs of one node consume when never short; unknown when the step time is.
  std::optional<SamplesPerSecond> needed_per_node;
  Bytes free_for_page_cache;  // host memory left over by everything else
  // Of a host while it trains, as ram/ says: loader processes, batches in flight, page-locked ones.
  Bytes loaders{}, batches{}, pinned{};
  bool flow_only = false;  // the flow alone, none of what would improve it
};

// The rate of each stage and the slowest of them. Rules: docs/model/data-path.md.
[[nodiscard]] Result<facts::FeedPlan> data_path(const Request& request);

}  // namespace steelyard::feed
