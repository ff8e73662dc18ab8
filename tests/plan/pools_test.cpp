// Frameworks that take a pool of the card at once: TensorFlow all but a reserve, JAX three
// quarters.
#include <gtest/gtest.h>

#include "plan/planning.h"

namespace steelyard::plan {
namespace {

using namespace literals;

facts::Job gpt2_in(std::string_view framework, std::int64_t samples) {
  facts::Job job = job_on_cards("a100-sxm-40gb", 1);
  job.framework = framework;
  job.model.config = std::string("gpt2");
  job.train.micro_batch = samples;
  job.train.sequence_length = 512;
  job.train.precision = facts::Precision::bf16_mixed;
  return job;
}

// Expandable segments leave less between blocks; what is allocated is the same to the byte but for
// tails of blocks that are not split.
TEST(Pools, ExpandableSegmentsReserveLess) {
  facts::Job job = gpt2_in("pytorch", 8);
  const facts::Plan plain = planned(job);
  job.train.allocator = facts::AllocatorConf{};
  job.train.allocator->expandable_segments = true;
  const facts::Plan expandable = planned(job);
  EXPECT_LT(expandable.vram.fullest.peak_reserved, plain.vram.fullest.peak_reserved);
  EXPECT_GE(expandable.vram.fullest.peak_reserved, expandable.vram.fullest.peak_allocated);
  EXPECT_LE(expandable.vram.fullest.peak_allocated, plain.vram.fullest.peak_allocated);
  EXPECT_GT(expandable.vram.fullest.peak_allocated.value(),
            plain.vram.fullest.peak_allocated.value() * 99 / 100);
}

TEST(Pools, AnAllocatorConfIsPyTorchs) {
  facts::Job job = gpt2_in("jax", 4);
  job.train.allocator =
      facts::AllocatorConf{.text = "expandable_segments:True", .expandable_segments = true};
  const auto refused = plan(request_for(job));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().subject, "train.allocator");
}

// 40 GiB less 725 MiB of context less 1536 MiB that stay free (compute capability 8).
TEST(Pools, TensorFlowTakesAllButItsReserve) {
  const facts::Plan plan = planned(gpt2_in("tensorflow", 4));
  EXPECT_EQ(plan.vram.fullest.peak_reserved, 40_GiB - 725_MiB - 1536_MiB);
  EXPECT_EQ(plan.vram.fullest.peak_device_used, 40_GiB - 1536_MiB);
  EXPECT_EQ(plan.vram.fullest.by_category.total(), plan.vram.fullest.peak_device_used);
  EXPECT_EQ(plan.fits_vram, true);
  // Weights, gradients and two states of 124,439,808 parameters in fp32 at least.
  EXPECT_GT(plan.vram.fullest.peak_allocated, Bytes(124'439'808) * 12);
  EXPECT_LT(plan.vram.fullest.peak_allocated, 6_GiB);
}

TEST(Pools, JaxTakesThreeQuarters) {
  const facts::Plan plan = planned(gpt2_in("jax", 4));
  EXPECT_EQ(plan.vram.fullest.peak_reserved, 30_GiB);
  EXPECT_EQ(plan.vram.fullest.peak_device_used, 30_GiB + 725_MiB);
  EXPECT_EQ(plan.fits_vram, true);
  // Compiled whatever train.compile says: that key changes nothing.
  facts::Job compiled = gpt2_in("jax", 4);
  compiled.train.compile = true;
  EXPECT_EQ(planned(compiled).vram.fullest.peak_allocated, plan.vram.fullest.peak_allocated);
}

// More than the pool, less than the card: it does not fit, and device-used is the card that would
// do, 4/3 of the pool that is needed.
TEST(Pools, WhatExceedsThePoolDoesNotFit) {
  std::int64_t samples = 64;
  facts::Plan plan = planned(gpt2_in("jax", samples));
  while (plan.fits_vram.value_or(false)) plan = planned(gpt2_in("jax", samples += 8));
  const facts::RankMemory& rank = plan.vram.fullest;
  EXPECT_GT(rank.peak_reserved, 30_GiB);
  EXPECT_LT(rank.peak_allocated, 40_GiB - 725_MiB);
  EXPECT_NEAR(static_cast<double>(rank.peak_device_used.value()),
              static_cast<double>(rank.peak_reserved.value()) / 0.75, 1.0);
}

// Without a known capacity the pool is what the job needs.
TEST(Pools, AnUnknownCardHasAPoolOfTheNeededSize) {
  Request request = request_for(gpt2_in("jax", 4));
  request.machine.gpu.memory = {};
  const facts::Plan plan = value_of(steelyard::plan::plan(request));
  EXPECT_FALSE(plan.fits_vram);
  EXPECT_GE(plan.vram.fullest.peak_reserved, plan.vram.fullest.peak_allocated);
  EXPECT_LT(plan.vram.fullest.peak_reserved, plan.vram.fullest.peak_allocated + 1_GiB);
}

}  // namespace
}  // namespace steelyard::plan
