// What reentrant checkpoints hold beside others.
#include <gtest/gtest.h>

#include "step/adapters.h"
#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

// FSDP1 hangs a hook on the input of a frozen layer: a leaf, and so held with its gradient, under
// reentrant checkpoints alone.
TEST(Reentrant, FrozenLayersUnderFsdp1HoldTheirBoundaries) {
  facts::Job job = small_job(2);
  job.parallel.sharding = facts::Sharding::fsdp1;
  job.train.method = facts::Method::lora;
  job.train.recompute.mode = facts::RecomputeMode::full;
  facts::FrameworkProfile profile = profile_of("transformers");
  const model::Block frozen;
  const auto keeps = [&] {
    const Result<AdapterHabits> habits = adapter_habits_of(profile);
    EXPECT_TRUE(habits);
    return habits && keeps_boundaries(job, *habits, frozen);
  };
  EXPECT_TRUE(keeps());
  profile.operators["checkpoint"] = "early_stop";
  EXPECT_FALSE(keeps());
}

}  // namespace
}  // namespace steelyard::step
