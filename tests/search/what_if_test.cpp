// Limits and comparisons with the real planner: at each limit the job fits, one step further it
// does not.
#include <gtest/gtest.h>

#include "search/own_planner.h"

namespace steelyard::search {
namespace {

facts::Job gpt2_on(const char* gpu, std::int64_t gpus) {
  facts::Job job = plan::job_on_cards(gpu, gpus);
  job.name = "gpt2";
  job.model.config = std::string("gpt2");
  job.train.micro_batch = 4;
  job.train.gradient_accumulation = 1;
  job.train.sequence_length = 512;
  job.data.kind = facts::DataKind::tokens;
  return job;
}

facts::Limits limits_of(const facts::Job& job) {
  const facts::Plan planned = plan::value_of(own_planner()(job, Depth::full));
  const facts::ModelSource model = plan::value_of(plan::own_catalog().model_of(job, {}));
  return limits({.job = &job, .planned = &planned, .layers = layers_of(model.config)},
                own_planner());
}

const facts::Limit& named(const facts::Limits& limits, const std::string& key) {
  for (const facts::Limit& limit : limits.limits) {
    if (limit.key == key) return limit;
  }
  throw std::logic_error("no limit of " + key);
}

bool fits(const facts::Job& job) {
  const Result<facts::Plan> plan = own_planner()(job, Depth::full);
  return plan && plan->fits();
}

TEST(Limits, OfTheMicroBatchIsWhereItStopsToFit) {
  facts::Job job = gpt2_on("rtx-3090", 1);
  const facts::Limits found = limits_of(job);
  EXPECT_TRUE(found.fits);
  const facts::Limit& limit = named(found, "train.micro_batch");
  EXPECT_EQ(limit.now, 4);
  ASSERT_TRUE(limit.limit.has_value());
  job.train.micro_batch = *limit.limit;
  EXPECT_TRUE(fits(job));
  job.train.micro_batch = *limit.limit + 1;
  EXPECT_FALSE(fits(job));
  EXPECT_NE(limit.breaks.find("each GPU needs"), std::string::npos) << limit.breaks;
}

TEST(Limits, OfTheSequenceNamesTheModelsPositions) {
  const facts::Limit limit = named(limits_of(gpt2_on("rtx-3090", 1)), "train.sequence_length");
  EXPECT_EQ(limit.limit, 1024);
  EXPECT_NE(limit.breaks.find("n_positions"), std::string::npos) << limit.breaks;
}

TEST(Limits, OfHostMemoryIsTheLeastThatHolds) {
  facts::Job job = gpt2_on("rtx-3090", 1);
  const facts::Limit limit = named(limits_of(job), "machine.ram_gib");
  EXPECT_EQ(limit.sense, facts::LimitSense::least);
  ASSERT_TRUE(limit.limit.has_value());
  job.machine.ram_gib = static_cast<double>(*limit.limit);
  EXPECT_TRUE(fits(job));
  job.machine.ram_gib = static_cast<double>(*limit.limit - 1);
  EXPECT_FALSE(fits(job));
}

TEST(Limits, OfGpusCountsReplicasDown) {
  facts::Job job = gpt2_on("rtx-3090", 8);
  job.parallel.sharding = facts::Sharding::fsdp;
  job.model.config = std::string("gpt2-xl");
  job.train.micro_batch = 1;
  const facts::Limit limit = named(limits_of(job), "machine.gpus x machine.nodes");
  EXPECT_EQ(limit.now, 8);
  ASSERT_TRUE(limit.limit.has_value());
  job.machine.gpus = *limit.limit;
  EXPECT_TRUE(fits(job));
  if (*limit.limit > 1) {
    job.machine.gpus = *limit.limit - 1;
    EXPECT_FALSE(fits(job));
  }
}

TEST(Limits, NothingFitsOnACardThatIsTooSmall) {
  facts::Job job = gpt2_on("rtx-3090", 1);
  job.machine.vram_gib = 1.5;
  const facts::Limits found = limits_of(job);
  EXPECT_FALSE(found.fits);
  EXPECT_EQ(named(found, "train.micro_batch").limit, std::nullopt);
}

TEST(Compare, EachLineIsThePlanOfThatMachine) {
  const facts::Job job = gpt2_on("rtx-3090", 1);
  const facts::Plan planned = plan::value_of(own_planner()(job, Depth::full));
  facts::Job moved = job;
  moved.machine = {};
  moved.machine.gpu = "l40s";
  moved.machine.gpus = 1;
  const facts::Machine machine = plan::value_of(plan::own_catalog().machine_of(moved, {}));
  const facts::MachinesCompared compared =
      compare(job, planned, {{"l40s", machine}}, own_planner());
  EXPECT_EQ(compared.gpus, 1);
  ASSERT_EQ(compared.machines.size(), 1U);
  ASSERT_TRUE(compared.machines[0].plan.has_value()) << compared.machines[0].refused;
  const facts::Plan alone = plan::value_of(own_planner()(moved, Depth::full));
  EXPECT_EQ(compared.machines[0].plan->vram.fullest.peak_device_used,
            alone.vram.fullest.peak_device_used);
  EXPECT_EQ(compared.machines[0].plan->ram.peak, alone.ram.peak);
}

TEST(Compare, GpusThatDoNotFillNodesAreRefused) {
  const facts::Job job = gpt2_on("rtx-3090", 12);
  const facts::Plan planned = plan::value_of(own_planner()(job, Depth::full));
  facts::Machine machine;
  machine.kind = "server";
  machine.gpus = 8;
  const facts::MachinesCompared compared =
      compare(job, planned, {{"eight", machine}}, own_planner());
  EXPECT_FALSE(compared.machines[0].plan.has_value());
  EXPECT_EQ(compared.machines[0].refused, "12 GPUs do not fill nodes of 8 evenly");
}

}  // namespace
}  // namespace steelyard::search
