// How a rank holds parameters, gradients and optimizer states: types by precision, shards by
// sharding, states by optimizer, as a table.
#include "step/layout.h"
#include "step/groups.h"
#include "step/weight_storage.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace steelyard::step {
namespace {

using facts::DType;
using facts::OptimizerName;
using facts::Precision;
using facts::Sharding;

constexpr std::int64_t kRanks = 8;

facts::Job job_of(Precision precision, Sharding sharding,
                  OptimizerName optimizer = OptimizerName::adamw) {
  facts::Job job;
  job.train.precision = precision;
  job.train.optimizer.name = optimizer;
  job.parallel.sharding = sharding;
  job.parallel.data = kRanks;
  return job;
}

Layout layout_for(const facts::Job& job) {
  const Result<Layout> layout = layout_of(job);
  EXPECT_TRUE(layout) << (layout ? "" : to_text(layout.error()));
  return layout.value_or(Layout());
}

struct TypesRow {
  Precision precision;
  Sharding sharding;
  DType parameter, used, gradient, stepped, compute;
  bool autocast, master, tf32;
  std::int64_t bytes;  // per parameter with AdamW: parameter, gradient, master, two states
};

class Types : public ::testing::TestWithParam<TypesRow> {};

TEST_P(Types, FollowFromPrecisionAndSharding) {
  const TypesRow& row = GetParam();
  const Layout layout = layout_for(job_of(row.precision, row.sharding));
  EXPECT_EQ(layout.parameter, row.parameter);
  EXPECT_EQ(layout.used, row.used);
  EXPECT_EQ(layout.gradient, row.gradient);
  EXPECT_EQ(layout.stepped, row.stepped);
  EXPECT_EQ(layout.arithmetic.compute, row.compute);
  EXPECT_EQ(layout.arithmetic.autocast, row.autocast);
  EXPECT_EQ(layout.arithmetic.tf32, row.tf32);
  EXPECT_EQ(layout.master, row.master);
  EXPECT_EQ(facts::bytes_of(layout.parameter) + facts::bytes_of(layout.gradient) +
                (layout.master ? 4 : 0) +
                layout.optimizer.states * facts::bytes_of(layout.optimizer.state),
            row.bytes);
}

constexpr DType kWide = DType::fp32, kBf16 = DType::bf16, kFp16 = DType::fp16;

INSTANTIATE_TEST_SUITE_P(
    Table, Types,
    ::testing::Values(
        // Without mixing everything has the one type: 4 + 4 + 8, or 2 + 2 + 4.
        TypesRow{Precision::fp32, Sharding::none, kWide, kWide, kWide, kWide, kWide, false, false,
                 false, 16},
        TypesRow{Precision::tf32, Sharding::fsdp, kWide, kWide, kWide, kWide, kWide, false, false,
                 true, 16},
        TypesRow{Precision::bf16, Sharding::none, kBf16, kBf16, kBf16, kBf16, kBf16, false, false,
                 false, 8},
        TypesRow{Precision::fp16, Sharding::fsdp, kFp16, kFp16, kFp16, kFp16, kFp16, false, false,
                 false, 8},
        // Autocast: everything that is kept is fp32, 4 + 4 + 8.
        TypesRow{Precision::bf16_mixed, Sharding::none, kWide, kWide, kWide, kWide, kBf16, true,
                 false, false, 16},
        TypesRow{Precision::fp16_mixed, Sharding::none, kWide, kWide, kWide, kWide, kFp16, true,
                 false, false, 16},
        // DeepSpeed: 2 + 2, and master and two states in fp32 (ZeRO paper, section 3.1: 16 bytes).
        TypesRow{Precision::bf16_mixed, Sharding::zero1, kBf16, kBf16, kBf16, kWide, kBf16, false,
                 true, false, 16},
        TypesRow{Precision::fp16_mixed, Sharding::zero2, kFp16, kFp16, kFp16, kWide, kFp16, false,
                 true, false, 16},
        TypesRow{Precision::bf16_mixed, Sharding::zero3, kBf16, kBf16, kBf16, kWide, kBf16, false,
                 true, false, 16},
        // FSDP: fp32 shards, gathered in the short type, reduced into fp32 shards.
        TypesRow{Precision::bf16_mixed, Sharding::fsdp, kWide, kBf16, kWide, kWide, kBf16, false,
                 false, false, 16},
        TypesRow{Precision::fp16_mixed, Sharding::hsdp, kWide, kFp16, kWide, kWide, kFp16, false,
                 false, false, 16},
        TypesRow{Precision::bf16_mixed, Sharding::shard_grad_op, kWide, kBf16, kWide, kWide, kBf16,
                 false, false, false, 16}));

TEST(Layout, MasterWeightsGoWithShortParametersOnly) {
  facts::Job job = job_of(Precision::bf16, Sharding::none);
  job.train.optimizer.master_weights = true;
  job.train.optimizer.state_precision = facts::ShortPrecision::fp32;
  const Layout layout = layout_for(job);
  EXPECT_TRUE(layout.master);
  EXPECT_EQ(layout.stepped, DType::fp32);
  EXPECT_EQ(layout.optimizer.state, DType::fp32);
  EXPECT_EQ(layout.parameter, DType::bf16);
  job.train.precision = Precision::fp32;
  EXPECT_FALSE(layout_for(job).master);
}

struct ShardsRow {
  Sharding sharding;
  std::int64_t parameter, gradient, optimizer;
  bool gathers, reshards, flat_buckets, outlives;
};

class Shards : public ::testing::TestWithParam<ShardsRow> {};

TEST_P(Shards, FollowFromTheSharding) {
  const ShardsRow& row = GetParam();
  const Layout layout = layout_for(job_of(Precision::bf16_mixed, row.sharding));
  EXPECT_EQ(layout.data, kRanks);
  EXPECT_EQ(layout.parameter_shards, row.parameter);
  EXPECT_EQ(layout.gradient_shards, row.gradient);
  EXPECT_EQ(layout.optimizer_shards, row.optimizer);
  EXPECT_EQ(layout.gathers, row.gathers);
  EXPECT_EQ(layout.reshards, row.reshards);
  EXPECT_EQ(layout.flat_buckets, row.flat_buckets);
  EXPECT_EQ(layout.gradients_outlive_step, row.outlives);
}

INSTANTIATE_TEST_SUITE_P(
    Table, Shards,
    ::testing::Values(ShardsRow{Sharding::none, 1, 1, 1, false, true, false, false},
                      ShardsRow{Sharding::zero1, 1, 1, 8, false, true, true, false},
                      ShardsRow{Sharding::zero2, 1, 8, 8, false, true, true, false},
                      ShardsRow{Sharding::zero3, 8, 8, 8, true, true, true, false},
                      ShardsRow{Sharding::fsdp, 8, 8, 8, true, true, false, false},
                      ShardsRow{Sharding::fsdp1, 8, 8, 8, true, true, false, true},
                      ShardsRow{Sharding::hsdp, 8, 8, 8, true, true, false, false},
                      ShardsRow{Sharding::shard_grad_op, 8, 8, 8, true, false, false, false}));

TEST(Layout, AShardingGroupMayBeSmallerThanTheJob) {
  facts::Job job = job_of(Precision::bf16_mixed, Sharding::hsdp);
  job.parallel.shard_group = 4;
  const Layout layout = layout_for(job);
  EXPECT_EQ(layout.parameter_shards, 4);
  EXPECT_EQ(layout.group, 4);
  EXPECT_EQ(layout.data, 8);
}

TEST(Layout, Fsdp1WithOneRankGathersNothingThatIsNotCast) {
  facts::Job job = job_of(Precision::bf16, Sharding::fsdp1);
  EXPECT_TRUE(layout_for(job).gathers);
  job.parallel.data = 1;
  EXPECT_FALSE(layout_for(job).gathers);
  EXPECT_TRUE(layout_for(job).flat_parameters);
  job.train.precision = Precision::bf16_mixed;
  EXPECT_TRUE(layout_for(job).gathers);
  job.train.precision = Precision::bf16;
  job.parallel.sharding = Sharding::fsdp;
  EXPECT_TRUE(layout_for(job).gathers);
}

TEST(Layout, ReshardAfterForwardIsTheJobsChoice) {
  facts::Job job = job_of(Precision::bf16_mixed, Sharding::fsdp);
  job.parallel.reshard_after_forward = false;
  EXPECT_FALSE(layout_for(job).reshards);
}

TEST(Layout, GradientsAreReducedInTheTypeThatTheJobSays) {
  facts::Job job = job_of(Precision::bf16_mixed, Sharding::fsdp);
  EXPECT_EQ(layout_for(job).reduce, DType::fp32);
  job.parallel.reduce_precision = facts::ShortPrecision::bf16;
  EXPECT_EQ(layout_for(job).reduce, DType::bf16);
  EXPECT_EQ(layout_for(job).gradient, DType::fp32);  // the shard keeps the parameter's type
}

struct OptimizerRow {
  OptimizerName name;
  std::int64_t states;
  bool in_blocks, paged, factored;
};

class Optimizers : public ::testing::TestWithParam<OptimizerRow> {};

TEST_P(Optimizers, HoldTheirStates) {
  const OptimizerRow& row = GetParam();
  const Layout layout = layout_for(job_of(Precision::fp32, Sharding::none, row.name));
  EXPECT_EQ(layout.optimizer.states, row.states);
  EXPECT_EQ(layout.optimizer.in_blocks, row.in_blocks);
  EXPECT_EQ(layout.optimizer.paged, row.paged);
  EXPECT_EQ(layout.optimizer.factored, row.factored);
  EXPECT_GT(layout.optimizer.passes, 0.0);
}

INSTANTIATE_TEST_SUITE_P(
    Table, Optimizers,
    ::testing::Values(OptimizerRow{OptimizerName::adamw, 2, false, false, false},
                      OptimizerRow{OptimizerName::adam, 2, false, false, false},
                      OptimizerRow{OptimizerName::lamb, 2, false, false, false},
                      OptimizerRow{OptimizerName::adamw8bit, 2, true, false, false},
                      OptimizerRow{OptimizerName::adamw4bit, 2, true, false, false},
                      OptimizerRow{OptimizerName::adamw_fp8, 2, true, false, false},
                      OptimizerRow{OptimizerName::paged_adamw, 2, false, true, false},
                      OptimizerRow{OptimizerName::paged_adamw8bit, 2, true, true, false},
                      OptimizerRow{OptimizerName::adafactor, 0, false, false, true},
                      OptimizerRow{OptimizerName::lion, 1, false, false, false},
                      OptimizerRow{OptimizerName::muon, 1, false, false, false},
                      OptimizerRow{OptimizerName::rmsprop, 1, false, false, false},
                      OptimizerRow{OptimizerName::sgd_momentum, 1, false, false, false},
                      OptimizerRow{OptimizerName::sgd, 0, false, false, false}));

// torch/optim/adamw.py: foreach takes a square root of all second moments at once, the loop of one
// parameter at a time, the fused kernel none.
TEST(Layout, CopiesDuringTheStepFollowTheImplementation) {
  facts::Job job = job_of(Precision::fp32, Sharding::none);
  const OptimizerLayout by_default = layout_for(job).optimizer;
  EXPECT_EQ(by_default.step_copies, 1);
  EXPECT_FALSE(by_default.loop);
  job.train.optimizer.foreach = false;
  EXPECT_TRUE(layout_for(job).optimizer.loop);
  job.train.optimizer.fused = true;
  const OptimizerLayout fused = layout_for(job).optimizer;
  EXPECT_EQ(fused.step_copies, 0);
  EXPECT_TRUE(fused.fused);
  EXPECT_FALSE(fused.loop);
  EXPECT_LT(fused.passes, by_default.passes);
}

// Nodes of four GPUs, 18 of them on one fabric.
TEST(Groups, AFabricOverNodesCountsAsOneNode) {
  facts::Job job = job_of(Precision::bf16, Sharding::none);
  job.machine.nodes = 32;
  job.machine.gpus = 4;
  EXPECT_EQ(group_of(job, 8, 1).ranks_per_node, 4);
  job.machine.fabric_gpus = 72;
  EXPECT_EQ(group_of(job, 8, 1).ranks_per_node, 8);
  EXPECT_EQ(group_of(job, 128, 1).ranks_per_node, 72);
  EXPECT_EQ(group_of(job, 2, 64).ranks_per_node, 1);
}

// torchao, optim/adam.py: Adam8bit and AdamFp8 a byte and a scale per 256 elements, Adam4bit half a
// byte and a scale per 128; tensors under 4096 elements stay as they are.
TEST(Layout, StatesInBlocksTakeTheirCodesAndScales) {
  const auto bytes = [](OptimizerName name, std::int64_t numel) {
    const Layout layout = layout_for(job_of(Precision::bf16, Sharding::none, name));
    return state_bytes(layout.optimizer, numel, layout.optimizer.state);
  };
  EXPECT_EQ(bytes(OptimizerName::adamw8bit, 65'536), Bytes(65'536 + 256 * 4));
  EXPECT_EQ(bytes(OptimizerName::adamw_fp8, 65'536), Bytes(65'536 + 256 * 4));
  EXPECT_EQ(bytes(OptimizerName::adamw4bit, 65'536), Bytes(32'768 + 512 * 4));
  EXPECT_EQ(bytes(OptimizerName::adamw4bit, 1000), Bytes(2000));
}

}  // namespace
}  // namespace steelyard::step
