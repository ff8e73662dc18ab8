// The step that the host's processors take: what its threads move of host memory.
#include <gtest/gtest.h>

#include "plan/plan.h"
#include "plan/planning.h"

namespace steelyard::plan {
namespace {

constexpr std::int64_t kRanks = 2;

facts::Job stepped_on_the_host(const char* framework) {
  facts::Job job = job_on_cards("a100-sxm-40gb", kRanks);
  job.framework = framework;
  job.model.config = std::string("tinyllama-1.1b");
  const bool zero = job.framework == "deepspeed";
  job.parallel.sharding = zero ? facts::Sharding::zero2 : facts::Sharding::fsdp1;
  job.train.precision = facts::Precision::bf16_mixed;
  job.train.sequence_length = 128;
  job.offload.optimizer = facts::OffloadTo::cpu;
  if (!zero) job.offload.parameters = facts::OffloadTo::cpu;
  return job;
}

double offload_of(facts::Job job, std::optional<std::int64_t> threads) {
  job.offload.host_threads = threads;
  return planned(job).pace.breakdown.offload.value();
}

// torchrun leaves each of several ranks one thread, DeepSpeed's launcher all cores.
TEST(HostStep, HasTheThreadsThatTheLauncherLeaves) {
  const facts::Job torch = stepped_on_the_host("pytorch");
  EXPECT_DOUBLE_EQ(offload_of(torch, {}), offload_of(torch, 1));
  const facts::Job deepspeed = stepped_on_the_host("deepspeed");
  EXPECT_DOUBLE_EQ(offload_of(deepspeed, {}), offload_of(deepspeed, 64));
  EXPECT_GT(offload_of(deepspeed, 1), 1.5 * offload_of(deepspeed, {}));
}

TEST(HostStep, OneRankHasAllCores) {
  facts::Job job = stepped_on_the_host("pytorch");
  job.machine.gpus = 1;
  job.parallel.sharding = facts::Sharding::fsdp1;
  EXPECT_LT(offload_of(job, {}), 0.5 * offload_of(job, 1));
}

// Each thread moves 20 GB/s, until the memory's own rate is reached.
TEST(HostStep, IsFasterWithMoreThreadsUntilMemoryIsTheLimit) {
  const facts::Job job = stepped_on_the_host("pytorch");
  const double one = offload_of(job, 1);
  const double two = offload_of(job, 2);
  const double four = offload_of(job, 4);
  EXPECT_NEAR((one - two) / (two - four), 2.0, 1e-6);
  EXPECT_DOUBLE_EQ(offload_of(job, 16), offload_of(job, 64));
}

}  // namespace
}  // namespace steelyard::plan
