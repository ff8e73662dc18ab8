// offload.parameters, offload.optimizer, offload.gradients: what leaves the GPU, what crosses the
// host link for it, and which combinations no framework has.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "step/offload_rules.h"
#include "step/player.h"
#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

using facts::Job;
using facts::OffloadTo;
using facts::Sharding;

constexpr std::int64_t kRanks = 4;

Job sharded(Sharding sharding, std::int64_t micro_batches = 1) {
  Job job = small_job(kRanks);
  job.parallel.sharding = sharding;
  job.train.precision = facts::Precision::bf16;
  job.train.optimizer.master_weights = true;
  job.train.gradient_accumulation = micro_batches;
  return job;
}

Job with_offload(Job job, OffloadTo parameters, OffloadTo optimizer,
                 OffloadTo gradients = OffloadTo::none) {
  job.offload.parameters = parameters;
  job.offload.optimizer = optimizer;
  job.offload.gradients = gradients;
  return job;
}

Program program_of(const Job& job) {
  const bool zero = job.parallel.sharding == Sharding::zero1 ||
                    job.parallel.sharding == Sharding::zero2 ||
                    job.parallel.sharding == Sharding::zero3;
  return program_for(graph_of(small_llama()), job, profile_of(zero ? "deepspeed" : "pytorch"));
}

// Bytes that live for ever: what set-up and the first step's states leave.
std::int64_t held(const Program& program, facts::VramCategory category) {
  std::int64_t bytes = 0;
  const auto each = [&](const Event& event, std::int64_t) {
    const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
    if (slot.category != category) return;
    if (event.kind == EventKind::allocate) bytes += slot.bytes.value();
    if (event.kind == EventKind::free) bytes -= slot.bytes.value();
  };
  play(program, program.setup, each);
  play(program, program.first_optimizer, each);
  return bytes;
}

bool makes(const Program& program, const std::string& name) {
  return std::ranges::any_of(program.slots, [&](const Slot& slot) {
    return program.names[static_cast<std::size_t>(slot.name)] == name;
  });
}

std::int64_t moved(const Program& program, const std::string& name) {
  std::int64_t bytes = 0;
  play(program, program.step, [&](const Event& event, std::int64_t) {
    if (event.kind != EventKind::work) return;
    const Work& work = program.work[static_cast<std::size_t>(event.index)];
    const bool named = program.names[static_cast<std::size_t>(work.name)] == name;
    if (work.kind == WorkKind::transfer && named) bytes += work.traffic.value();
  });
  return bytes;
}

void expect_steady(const Program& program, const std::string& text) {
  Player player(program);
  player.play(program.setup);
  player.step(true);
  const auto after_first = player.alive();
  player.step(false);
  EXPECT_EQ(player.complaint(), "") << text;
  EXPECT_EQ(player.alive(), after_first) << text;
}

TEST(Offload, EveryCombinationPlaysAndRepeats) {
  constexpr OffloadTo kNone = OffloadTo::none, kCpu = OffloadTo::cpu, kNvme = OffloadTo::nvme;
  for (const std::int64_t micro_batches : {1, 3}) {
    for (const Sharding sharding : {Sharding::zero1, Sharding::zero2, Sharding::zero3}) {
      expect_steady(program_of(with_offload(sharded(sharding, micro_batches), kNone, kCpu)),
                    std::string(facts::name_of(sharding)));
    }
    for (const OffloadTo to : {kCpu, kNvme}) {
      expect_steady(program_of(with_offload(sharded(Sharding::zero3, micro_batches), to, to)),
                    "zero3, parameters too");
    }
    for (const Sharding sharding : {Sharding::fsdp, Sharding::fsdp1, Sharding::shard_grad_op}) {
      expect_steady(program_of(with_offload(sharded(sharding, micro_batches), kCpu, kNone)),
                    std::string(facts::name_of(sharding)));
    }
  }
  for (const OffloadTo gradients : {kNone, kCpu}) {
    expect_steady(program_of(with_offload(sharded(Sharding::none), kNone, kCpu, gradients)), "DDP");
  }
}

TEST(Offload, TheGpuHoldsWhatIsNotOnTheHost) {
  using facts::VramCategory;
  const Program whole = program_of(sharded(Sharding::zero3));
  const Program states =
      program_of(with_offload(sharded(Sharding::zero3), OffloadTo::none, OffloadTo::cpu));
  const Program all =
      program_of(with_offload(sharded(Sharding::zero3), OffloadTo::cpu, OffloadTo::cpu));
  EXPECT_GT(held(whole, VramCategory::optimizer), 0);
  EXPECT_EQ(held(states, VramCategory::optimizer), 0);
  EXPECT_TRUE(makes(whole, "gradient partition"));
  EXPECT_FALSE(makes(states, "gradient partition"));
  EXPECT_EQ(held(states, VramCategory::parameters), held(whole, VramCategory::parameters));
  EXPECT_EQ(held(all, VramCategory::parameters), 0);
}

// What forward saves crosses the link twice, once each way, and waits on the host between.
TEST(Offload, ActivationsCrossTheLinkBothWays) {
  Job job = small_job(1);
  job.train.gradient_accumulation = 3;
  EXPECT_EQ(program_of(job).offloaded_activations, Bytes());
  job.offload.activations = OffloadTo::cpu;
  const Program program = program_of(job);
  EXPECT_GT(program.offloaded_activations, Bytes());
  std::int64_t out = 0, back = 0;
  const auto each = [&](const Event& event, std::int64_t) {
    if (event.kind != EventKind::work) return;
    const Work& work = program.work[static_cast<std::size_t>(event.index)];
    if (work.kind != WorkKind::transfer) return;
    const bool leaves = program.names[static_cast<std::size_t>(work.name)] == kActivationsToHost;
    (leaves ? out : back) += work.traffic.value();
  };
  play(program, program.step, each);
  EXPECT_EQ(out, 3 * program.offloaded_activations.value());
  EXPECT_EQ(back, out);
}

// stage3.py: grad_partitions_flat_buffer is made with the optimizer and stays.
TEST(Offload, StageThreeHoldsItsGradientPartitionFromTheStart) {
  const auto partitions_made = [](const Sharding sharding, std::int64_t& freed) {
    const Program program = program_of(sharded(sharding));
    std::int64_t made = 0;
    const auto each = [&](const Event& event, std::int64_t) {
      if (event.kind != EventKind::allocate && event.kind != EventKind::free) return;
      const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
      if (program.names[static_cast<std::size_t>(slot.name)] != "gradient partition") return;
      ++(event.kind == EventKind::allocate ? made : freed);
    };
    play(program, program.setup, each);
    play(program, program.step, [&](const Event& event, std::int64_t at) {
      if (event.kind == EventKind::free) each(event, at);
    });
    return made;
  };
  std::int64_t freed_by_three = 0, freed_by_two = 0;
  EXPECT_EQ(partitions_made(Sharding::zero3, freed_by_three), 1);
  EXPECT_EQ(freed_by_three, 0);
  EXPECT_EQ(partitions_made(Sharding::zero2, freed_by_two), 0);
  EXPECT_GT(freed_by_two, 0);
}

// bf16: 2 bytes of each of a rank's quarter of the parameters, once per micro-batch for gradients
// and once per step for what the host has stepped; parts are rounded up per layer.
TEST(Offload, GradientsGoToTheHostAndParametersComeBack) {
  const model::Graph graph = graph_of(small_llama());
  const std::int64_t shard = 2 * model::parameter_count(graph).value() / kRanks;
  const std::int64_t rounding = 2 * 64;
  const Program program =
      program_of(with_offload(sharded(Sharding::zero3, 3), OffloadTo::none, OffloadTo::cpu));
  EXPECT_NEAR(static_cast<double>(moved(program, "gradients to the host")),
              static_cast<double>(3 * shard), static_cast<double>(3 * rounding));
  EXPECT_NEAR(static_cast<double>(moved(program, "parameters to the GPU")),
              static_cast<double>(shard), static_cast<double>(rounding));
  EXPECT_EQ(moved(program, "parameters from the host"), 0);
}

TEST(Offload, ParametersOnTheHostAreFetchedForForwardAndBackward) {
  const model::Graph graph = graph_of(small_llama());
  const std::int64_t shard = 2 * model::parameter_count(graph).value() / kRanks;
  const Program program =
      program_of(with_offload(sharded(Sharding::zero3), OffloadTo::cpu, OffloadTo::cpu));
  const std::int64_t fetched = moved(program, "parameters from the host");
  EXPECT_GT(fetched, shard);
  EXPECT_LE(fetched, 2 * shard + 2 * 64);
  EXPECT_EQ(moved(program, "parameters to the GPU"), 0);
}

// FSDP in mixed precision keeps fp32 shards and casts them on the GPU: twice the bytes of bf16.
TEST(Offload, ShardsCrossTheLinkAsTheyAreHeld) {
  for (const Sharding sharding : {Sharding::fsdp, Sharding::fsdp1}) {
    Job job = with_offload(sharded(sharding), OffloadTo::cpu, OffloadTo::cpu);
    job.train.optimizer.master_weights.reset();
    const std::int64_t shorts = moved(program_of(job), "parameters from the host");
    job.train.precision = facts::Precision::bf16_mixed;
    EXPECT_GT(shorts, 0);
    EXPECT_EQ(moved(program_of(job), "parameters from the host"), 2 * shorts);
  }
}

std::string refused(Job job) {
  const Result<void> checked = check_offload(job);
  EXPECT_FALSE(checked);
  return checked ? "" : checked.error().subject;
}

TEST(Offload, WhatNoFrameworkHasIsRefusedByKey) {
  constexpr OffloadTo kNone = OffloadTo::none, kCpu = OffloadTo::cpu, kNvme = OffloadTo::nvme;
  EXPECT_EQ(refused(with_offload(sharded(Sharding::none), kCpu, kNone)), "offload.parameters");
  EXPECT_EQ(refused(with_offload(sharded(Sharding::zero2), kCpu, kCpu)), "offload.parameters");
  EXPECT_EQ(refused(with_offload(sharded(Sharding::fsdp), kNone, kCpu)), "offload.parameters");
  EXPECT_EQ(refused(with_offload(sharded(Sharding::fsdp), kNvme, kNone)), "offload.parameters");
  EXPECT_EQ(refused(with_offload(sharded(Sharding::zero2), kNone, kNvme)), "offload.optimizer");
  EXPECT_EQ(refused(with_offload(sharded(Sharding::none), kNone, kNone, kCpu)),
            "offload.gradients");
  EXPECT_EQ(refused(with_offload(sharded(Sharding::none, 2), kNone, kCpu, kCpu)),
            "offload.gradients");
}

}  // namespace
}  // namespace steelyard::step
