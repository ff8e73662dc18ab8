// Published figures that a plan's host side is held to: checkpoints of MLPerf Storage, machines of
// the catalogue that have too little memory to load a model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "plan/planning.h"

namespace steelyard::plan {
namespace {

using namespace literals;

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

// MLPerf Storage, checkpoint workloads, table 2 (printed as GB): 2 B of weights and 12 B of fp32
// weights and moments per parameter. 8B 104.7, 70B 911.2, 405B 5291.7 GiB.
struct Checkpoint {
  const char* model;
  std::int64_t heads;  // as MLPerf divides the width; kv heads are 8
  double gibibytes;
};

class Checkpoints : public ::testing::TestWithParam<Checkpoint> {};

TEST_P(Checkpoints, AreAsLargeAsPublished) {
  facts::Job job = job_on_cards("h100-sxm-80gb", 8);
  job.machine.nodes = 128;
  job.parallel.data = 1024;
  job.parallel.sharding = facts::Sharding::fsdp;
  job.model.config = std::string(GetParam().model);
  facts::Object heads;
  heads.emplace_back("num_attention_heads", facts::Value(GetParam().heads));
  job.model.set = facts::Value(std::move(heads));
  job.train.precision = facts::Precision::bf16;
  job.train.optimizer.name = facts::OptimizerName::adamw;
  job.train.optimizer.master_weights = true;
  job.train.sequence_length = 128;
  job.train.micro_batch = 1;
  job.checkpoint.every_steps = 100;
  job.checkpoint.method = facts::CheckpointMethod::sync;  // gathered in one host: all of it
  const facts::Plan plan = planned(job);
  const Bytes staged = plan.ram.phases[static_cast<std::size_t>(facts::RamPhase::checkpoint)]
                                      [facts::RamCategory::checkpoint_staging];
  EXPECT_NEAR(staged.real() / kGiB, GetParam().gibibytes, 0.001 * GetParam().gibibytes);
}

INSTANTIATE_TEST_SUITE_P(MlperfStorage, Checkpoints,
                         ::testing::Values(Checkpoint{"llama-3.1-8b", 32, 104.7},
                                           Checkpoint{"llama-3.1-70b", 128, 911.2},
                                           Checkpoint{"llama-3.1-405b", 128, 5291.7}));

constexpr const char* kSmallHosts[] = {"cudo:sapphire-rapids-h100_1x2v4gb", "verda:1V100.6V",
                                       "shadeform:massedcompute_A6000-base"};

facts::Job load_of_seven_billion(const char* machine) {
  facts::Job job = job_on(machine, 1);
  job.framework = "transformers";
  job.model.config = std::string("llama-2-7b");
  job.train.method = facts::Method::lora;
  job.train.precision = facts::Precision::fp16;
  job.train.sequence_length = 128;
  job.train.micro_batch = 1;
  job.checkpoint.load = facts::CheckpointLoad::per_rank;
  return job;
}

double gigabytes_of_loading(const facts::Plan& plan) {
  return plan.ram
             .phases[static_cast<std::size_t>(facts::RamPhase::load)]
                    [facts::RamCategory::model_load]
             .real() /
         1e9;
}

// Plain from_pretrained reads one shard of its files after the other beside the model: 7 billion
// fp16 parameters, 13.5 GB and 5 GB, beside the process and the system. 4, 23 and 24 GB of host
// memory are refused, whatever the card holds. (T0 in fp32, 42 GB, took 53.5 GB with shards of 10
// GB: transformers pull request 16844.)
TEST(SmallHosts, AreRefusedForALoadOfSevenBillionParameters) {
  for (const char* machine : kSmallHosts) {
    const facts::Plan plan = planned(load_of_seven_billion(machine));
    EXPECT_EQ(plan.fits_ram, false) << machine;
    EXPECT_NEAR(gigabytes_of_loading(plan), 18.5, 0.1) << machine;
  }
}

// Files were whole before transformers 4.18: two fp16 copies, 27 GB.
TEST(SmallHosts, AreRefusedForALoadThatKeepsTwoCopies) {
  for (const char* machine : kSmallHosts) {
    facts::Job job = load_of_seven_billion(machine);
    job.versions = facts::Object{{"transformers", "4.17"}};
    const facts::Plan plan = planned(job);
    EXPECT_EQ(plan.fits_ram, false) << machine;
    EXPECT_NEAR(gigabytes_of_loading(plan), 26.95, 0.1) << machine;
  }
}

// A whole plan: nodes of 24 GiB, of which four ranks of a small model leave too little.
TEST(NumaNodes, ThatHaveNoRoomForTheirRanksDoNotFit) {
  facts::Job job = job_on("aws:p4d.24xlarge", 8);
  job.model.config = config_of(SmallModel{});
  job.train.sequence_length = 128;
  job.train.micro_batch = 1;
  facts::Plan plan = planned(job);
  job.machine.ram_gib = plan.ram.peak.real() / static_cast<double>((1_GiB).value()) * 1.01;
  job.machine.gpus = 5;  // four of them on the first socket
  job.machine.numa_binding = true;
  plan = planned(job);
  EXPECT_EQ(plan.fits_ram, true);
  job.machine.ram_gib = plan.ram.peak.real() / static_cast<double>((1_GiB).value()) * 1.01;
  plan = planned(job);
  EXPECT_EQ(plan.fits_ram, true) << "memory of other nodes is taken";
  ASSERT_NE(plan.numa.short_node(), nullptr);
  EXPECT_EQ(plan.short_node(), nullptr);
  job.machine.numa_memory = facts::NumaMemory::strict;
  plan = planned(job);
  EXPECT_EQ(plan.fits_ram, false);
  ASSERT_NE(plan.short_node(), nullptr);
  EXPECT_EQ(plan.short_node()->node, 0);
  EXPECT_THAT(plan.balance.verdicts, ::testing::Contains(facts::BalanceVerdict::ram_short));
}

}  // namespace
}  // namespace steelyard::plan
