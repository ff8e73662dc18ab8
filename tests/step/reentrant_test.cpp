// What reentrant checkpoints hold beside others.
#include <gtest/gtest.h>

#include <algorithm>

#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

// The most bytes alive in a step, without what an allocator adds.
std::int64_t most(const facts::Job& job, const facts::FrameworkProfile& profile) {
  const Program program = program_for(graph_of(small_llama()), job, profile);
  std::int64_t alive = 0;
  std::int64_t peak = 0;
  play(program, program.step, [&](const Event& event, std::int64_t) {
    if (event.kind != EventKind::allocate && event.kind != EventKind::free) return;
    const std::int64_t bytes = program.slots[static_cast<std::size_t>(event.index)].bytes.value();
    alive += event.kind == EventKind::allocate ? bytes : -bytes;
    peak = std::max(peak, alive);
  });
  return peak;
}

// FSDP1 hangs a hook on the input of a frozen layer: a leaf, and so held with its gradient, under
// reentrant checkpoints alone.
TEST(Reentrant, FrozenLayersUnderFsdp1HoldTheirBoundaries) {
  facts::Job job = small_job(2);
  job.parallel.sharding = facts::Sharding::fsdp1;
  job.train.method = facts::Method::lora;
  job.train.lora.rank = 2;
  job.train.lora.targets = {"q_proj"};
  job.train.recompute.mode = facts::RecomputeMode::full;
  facts::FrameworkProfile profile = profile_of("transformers");
  const std::int64_t reentrant = most(job, profile);
  profile.operators["checkpoint"] = "early_stop";
  EXPECT_LT(most(job, profile), reentrant);
}

}  // namespace
}  // namespace steelyard::step
