// What a job leaves out gets a value and an origin; what cannot be is refused by its key.
#include "plan/resolve.h"

#include <functional>

#include "plan/planning.h"

namespace steelyard::plan {
namespace {

using facts::Job;
using facts::Origin;
using facts::Precision;
using facts::Sharding;
using facts::ShortPrecision;

Job small_job(std::int64_t gpus = 8) {
  Job job = job_on("dgx-h100", gpus);
  job.model.config = config_of({});
  return job;
}

Result<Job> resolved(const Job& job) {
  return resolve(job, value_of(own_catalog().model_of(job, {})),
                 value_of(own_catalog().machine_of(small_job(), {})));
}

Origin origin_of(const Job& job, const char* key) {
  const auto found = job.origins.find(key);
  EXPECT_NE(found, job.origins.end()) << key;
  return found == job.origins.end() ? Origin::job : found->second.origin;
}

TEST(Resolve, FillsEveryDefaultWithItsOrigin) {
  Job bare = small_job();
  bare.machine.gpus.reset();
  const Job job = value_of(resolved(bare));
  EXPECT_EQ(job.machine.gpus, 8);
  EXPECT_EQ(origin_of(job, "machine.gpus"), Origin::machine);
  EXPECT_EQ(job.parallel.data, 8);
  EXPECT_EQ(origin_of(job, "parallel.data"), Origin::fallback);
  EXPECT_EQ(job.parallel.shard_group, 8);
  EXPECT_EQ(job.train.micro_batch, 1);
  EXPECT_EQ(job.train.gradient_accumulation, 1);
  EXPECT_EQ(job.train.global_batch, 8);
  EXPECT_EQ(job.train.sequence_length, 2048);  // of the model's 4096 at most 2048
  EXPECT_EQ(origin_of(job, "train.sequence_length"), Origin::model);
  EXPECT_EQ(job.data.kind, facts::DataKind::tokens);
  EXPECT_EQ(origin_of(job, "data.kind"), Origin::model);
  EXPECT_EQ(job.data.bytes_per_sample, 4096.0);  // 2048 ids below 65,536: two bytes each
  EXPECT_EQ(job.data.layout, facts::DataLayout::memmap);
  EXPECT_EQ(origin_of(job, "data.location"), Origin::machine);
  EXPECT_EQ(job.data.workers, 2);
  EXPECT_EQ(job.checkpoint.every_steps, 1000);
  EXPECT_EQ(origin_of(job, "checkpoint.every_steps"), Origin::fallback);
  EXPECT_FALSE(job.name.empty());
}

TEST(Resolve, WhatTheJobSaysKeepsItsOrigin) {
  Job given = small_job();
  given.train.micro_batch = 3;
  given.origins["train.micro_batch"] = {Origin::job, 12};
  const Job job = value_of(resolved(given));
  EXPECT_EQ(job.train.micro_batch, 3);
  EXPECT_EQ(origin_of(job, "train.micro_batch"), Origin::job);
  EXPECT_EQ(job.origins.find("train.micro_batch")->second.line, 12);
}

// A recipe's dropout is of adapters; a framework's way to load under FSDP is a default, no more.
TEST(Resolve, AFrameworksHabitsAreDefaultsWhereTheyApply) {
  facts::FrameworkProfile framework;
  framework.operators = {{"lora_dropout", "0.05"}, {"sharded_loading", "rank0"}};
  const auto with = [&](const Job& job) {
    return value_of(resolve(job, value_of(own_catalog().model_of(job, {})),
                            value_of(own_catalog().machine_of(small_job(), {})), framework));
  };
  Job job = small_job();
  EXPECT_EQ(with(job).train.lora.dropout, 0.0);
  job.train.method = facts::Method::lora;
  EXPECT_EQ(with(job).train.lora.dropout, 0.05);
  EXPECT_EQ(with(job).checkpoint.load, facts::CheckpointLoad::mmap);
  job.parallel.sharding = Sharding::fsdp;
  EXPECT_EQ(with(job).checkpoint.load, facts::CheckpointLoad::rank0);
  job.parallel.sharding = Sharding::zero3;
  EXPECT_EQ(with(job).checkpoint.load, facts::CheckpointLoad::mmap);
  job.parallel.sharding = Sharding::fsdp;
  job.checkpoint.load = facts::CheckpointLoad::meta;
  job.origins["checkpoint.load"] = {Origin::job, 3};
  EXPECT_EQ(with(job).checkpoint.load, facts::CheckpointLoad::meta);
}

// foreach kernels are the default for tensors of accelerators only.
TEST(Resolve, OptimizersOnTheHostStepOneByOne) {
  Job job = small_job();
  job.machine = {};
  job.machine.gpu = "cpu";
  job.machine.gpus = 2;
  const Job on_host = value_of(resolve(job, value_of(own_catalog().model_of(job, {})),
                                       value_of(own_catalog().machine_of(job, {})), {}));
  EXPECT_EQ(on_host.train.optimizer.foreach, false);
}

TEST(Resolve, OneOfGlobalBatchAndAccumulationFollowsFromTheOther) {
  Job job = small_job();  // 8 ranks
  job.train.micro_batch = 2;
  job.train.global_batch = 64;
  EXPECT_EQ(value_of(resolved(job)).train.gradient_accumulation, 4);  // 64 / (2 x 8)
  job.train.global_batch.reset();
  job.train.gradient_accumulation = 3;
  EXPECT_EQ(value_of(resolved(job)).train.global_batch, 48);
  job.train.micro_batch.reset();
  job.train.global_batch = 48;
  EXPECT_EQ(value_of(resolved(job)).train.micro_batch, 2);
}

// Composer's DecoupledAdamW; DeepSpeed's own kernel comes before it, the job before both.
TEST(Resolve, RanksOfZeroWriteTheirOwnPartsUnlessTheJobSaysOtherwise) {
  using facts::CheckpointMethod;
  Job job = small_job();
  EXPECT_EQ(value_of(resolved(job)).checkpoint.method, CheckpointMethod::sync);
  job.parallel.sharding = Sharding::zero2;
  EXPECT_EQ(value_of(resolved(job)).checkpoint.method, CheckpointMethod::sharded_sync);
  job.checkpoint.method = CheckpointMethod::async;
  job.origins["checkpoint.method"] = {Origin::job, {}};
  EXPECT_EQ(value_of(resolved(job)).checkpoint.method, CheckpointMethod::async);
}

TEST(Resolve, ALibrarysChunkedLossBringsItsKernelsUnlessTheJobNamesSome) {
  using facts::FusedKernel;
  facts::FrameworkProfile framework;
  framework.operators["chunked_loss_kernels"] = "rmsnorm, lora";
  const auto kernels = [&](const Job& job) {
    return value_of(resolve(job, value_of(own_catalog().model_of(job, {})),
                            value_of(own_catalog().machine_of(small_job(), {})), framework))
        .train.fused_kernels;
  };
  Job job = small_job();
  EXPECT_TRUE(kernels(job).empty());
  job.train.loss = facts::Loss::chunked;
  EXPECT_EQ(kernels(job), (std::vector{FusedKernel::rmsnorm, FusedKernel::lora}));
  job.origins["train.fused_kernels"] = {Origin::job, {}};  // an empty list, said so
  EXPECT_TRUE(kernels(job).empty());
}

TEST(Resolve, AFrameworksOptimizerMayBeALoop) {
  facts::FrameworkProfile framework;
  framework.operators["optimizer"] = "loop";
  const auto with = [&](const Job& job) {
    return value_of(resolve(job, value_of(own_catalog().model_of(job, {})),
                            value_of(own_catalog().machine_of(small_job(), {})), framework));
  };
  Job job = small_job();
  EXPECT_EQ(with(job).train.optimizer.fused, false);
  EXPECT_EQ(with(job).train.optimizer.foreach, false);
  job.train.optimizer.foreach = true;
  EXPECT_EQ(with(job).train.optimizer.foreach, true);
  job.train.optimizer.foreach.reset();
  job.parallel.sharding = Sharding::zero2;
  EXPECT_EQ(with(job).train.optimizer.fused, true);
}

TEST(Resolve, TypesFollowPrecisionAndSharding) {
  struct Row {
    Precision precision;
    Sharding sharding;
    ShortPrecision reduce, state;
    bool master, fused;
  };
  using enum ShortPrecision;
  for (const Row& row : {Row{Precision::fp32, Sharding::none, fp32, fp32, false, false},
                         Row{Precision::bf16_mixed, Sharding::none, fp32, fp32, false, false},
                         Row{Precision::bf16_mixed, Sharding::fsdp, fp32, fp32, false, false},
                         Row{Precision::bf16_mixed, Sharding::zero2, bf16, fp32, true, true},
                         Row{Precision::fp16_mixed, Sharding::zero3, fp16, fp32, true, true},
                         Row{Precision::bf16, Sharding::none, bf16, bf16, false, false},
                         Row{Precision::fp32, Sharding::zero1, fp32, fp32, false, true}}) {
    SCOPED_TRACE(std::string(facts::name_of(row.precision)) + " " +
                 std::string(facts::name_of(row.sharding)));
    Job given = small_job();
    given.train.precision = row.precision;
    given.parallel.sharding = row.sharding;
    const Job job = value_of(resolved(given));
    EXPECT_EQ(job.parallel.reduce_precision, row.reduce);
    EXPECT_EQ(job.train.optimizer.state_precision, row.state);
    EXPECT_EQ(job.train.optimizer.master_weights, row.master);
    EXPECT_EQ(job.train.optimizer.fused, row.fused);
    EXPECT_EQ(job.train.optimizer.foreach, !row.fused);
  }
}

// bitsandbytes' 32-bit states are fp32 beside parameters of any type (optim/optimizer.py,
// init_state); torch's follow them.
TEST(Resolve, StatesOfAPagedOptimizerAreWide) {
  Job given = small_job();
  given.train.precision = Precision::bf16;
  given.train.optimizer.name = facts::OptimizerName::paged_adamw;
  EXPECT_EQ(value_of(resolved(given)).train.optimizer.state_precision, ShortPrecision::fp32);
  given.train.optimizer.state_precision = ShortPrecision::bf16;
  EXPECT_EQ(value_of(resolved(given)).train.optimizer.state_precision, ShortPrecision::bf16);
}

TEST(Resolve, HybridShardingStaysInsideANode) {
  Job job = small_job();
  job.machine.nodes = 2;
  job.parallel.sharding = Sharding::hsdp;
  EXPECT_EQ(value_of(resolved(job)).parallel.shard_group, 8);
  job.parallel.sharding = Sharding::fsdp;
  EXPECT_EQ(value_of(resolved(job)).parallel.shard_group, 16);
}

TEST(Resolve, ALargeVocabularyTakesFourBytesPerToken) {
  SmallModel model;
  model.vocabulary = 128256;
  Job job = small_job();
  job.model.config = config_of(model);
  job.train.sequence_length = 100;
  EXPECT_EQ(value_of(resolved(job)).data.bytes_per_sample, 400.0);
}

TEST(Resolve, PicturesAreFilesThatManyWorkersDecode) {
  Job job = small_job();
  job.data.kind = facts::DataKind::jpeg;
  const Job done = value_of(resolved(job));
  EXPECT_EQ(done.data.layout, facts::DataLayout::files);
  EXPECT_EQ(done.data.workers, 8);
  EXPECT_FALSE(done.data.bytes_per_sample);
}

struct Impossible {
  const char* key;
  std::function<void(Job&)> set;
};

class Refused : public ::testing::TestWithParam<Impossible> {};

TEST_P(Refused, NamesTheKey) {
  Job job = small_job();
  GetParam().set(job);
  const Result<Job> result = resolved(job);
  ASSERT_FALSE(result) << GetParam().key;
  EXPECT_EQ(result.error().code, ErrorCode::impossible_combination);
  EXPECT_EQ(result.error().subject, GetParam().key);
  EXPECT_FALSE(result.error().found.empty());
  EXPECT_FALSE(result.error().accepted.empty());
}

INSTANTIATE_TEST_SUITE_P(
    Combinations, Refused,
    ::testing::Values(Impossible{"machine.gpus", [](Job& j) { j.machine.gpus = 9; }},
                      Impossible{"parallel", [](Job& j) { j.parallel.tensor = 3; }},
                      Impossible{"parallel.data", [](Job& j) { j.parallel.data = 4; }},
                      Impossible{"parallel.shard_group",
                                 [](Job& j) {
                                   j.parallel.sharding = Sharding::hsdp;
                                   j.parallel.shard_group = 3;
                                 }},
                      Impossible{"train.global_batch", [](Job& j) { j.train.global_batch = 12; }},
                      Impossible{"train.global_batch",
                                 [](Job& j) {
                                   j.train.global_batch = 64;
                                   j.train.micro_batch = 2;
                                   j.train.gradient_accumulation = 3;
                                 }},
                      Impossible{"train.optimizer",
                                 [](Job& j) {
                                   j.train.optimizer.fused = j.train.optimizer.foreach = true;
                                 }}),
    [](const auto& row) { return std::to_string(row.index); });

TEST(Resolve, AFolderOfSamplesHasToBeMeasuredBefore) {
  Job job = small_job();
  job.data.sizes_from = "photographs";
  const Result<Job> result = resolved(job);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::missing_value);
  EXPECT_EQ(result.error().subject, "data.sizes_from");
  job.data.bytes_per_sample = 1000;
  EXPECT_TRUE(resolved(job));
}

}  // namespace
}  // namespace steelyard::plan
