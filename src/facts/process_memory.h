// What of a node's memory its fullest process holds, phase by phase: a view of the plan, from where
// the rules of `ram` put each category (docs/model/host-memory.md, "One process").
#pragma once

#include <algorithm>
#include <cstdint>

#include "facts/plan.h"

namespace steelyard::facts {

struct ProcessMemory {
  std::array<RamBytes, kRamPhases> phases{};
  Bytes peak;
  RamPhase peak_phase = RamPhase::startup;
};

// How many alike processes of the node share a category. 0: none of it lies in a training process.
inline std::int64_t sharers_of(RamCategory category, const Job& job) {
  const std::int64_t ranks = std::max<std::int64_t>(1, job.machine.gpus.value_or(1));
  switch (category) {
    case RamCategory::system:
    case RamCategory::loader_workers:
    case RamCategory::shared_memory: return 0;
    // A rank maps a batch at a time of those that its workers put into shared memory.
    case RamCategory::prefetch: {
      const std::int64_t workers = std::max<std::int64_t>(0, job.data.workers.value_or(0));
      const std::int64_t ahead = workers * std::max<std::int64_t>(1, job.data.prefetch);
      return ranks * (1 + ahead);
    }
    case RamCategory::model_load: return job.checkpoint.load == CheckpointLoad::rank0 ? 1 : ranks;
    case RamCategory::checkpoint_staging: {
      const bool sharded = job.checkpoint.method == CheckpointMethod::sharded_sync ||
                           job.checkpoint.method == CheckpointMethod::sharded_async;
      return sharded ? ranks : 1;
    }
    default: return ranks;
  }
}

// Of one rank without its loader processes; libraries that ranks share count in equal parts.
inline ProcessMemory fullest_process(const Plan& plan) {
  ProcessMemory process;
  for (std::size_t i = 0; i < kRamPhases; ++i) {
    for (std::size_t c = 0; c < kRamCategories; ++c) {
      const auto category = static_cast<RamCategory>(c);
      const std::int64_t sharers = sharers_of(category, plan.job);
      if (sharers > 0) {
        process.phases[i][category] = ceil_divide(plan.ram.phases[i][category], sharers);
      }
    }
    const Bytes total = process.phases[i].total();
    if (i == 0 || total > process.peak) {
      process.peak = total;
      process.peak_phase = static_cast<RamPhase>(i);
    }
  }
  return process;
}

}  // namespace steelyard::facts
