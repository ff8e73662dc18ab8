// Attention: its kernels, head sizes, types and lengths.
#include <gtest/gtest.h>

#include <cstdint>

#include "pace/roofline.h"
#include "pace/small_programs.h"

namespace steelyard::pace {
namespace {

using test::halves;
using test::round_machine;
using namespace literals;

WorkTime priced(const step::Work& work, const facts::EfficiencyConstants& constants,
                const Nature& nature = {}) {
  Missing missing;
  const auto time = time_of(work, round_machine().gpu, constants, missing, nature);
  EXPECT_TRUE(time.has_value());
  EXPECT_FALSE(missing.any());
  return time.value_or(WorkTime());
}

TEST(Attention, ShortSequencesKeepAttentionWaiting) {
  facts::EfficiencyConstants constants = halves();
  constants.attention_half_intensity = 100.0;
  step::Work attention;
  attention.kind = step::WorkKind::attention;
  attention.dtype = facts::DType::bf16;
  attention.flops = 1_TFLOP;
  attention.traffic = 10_GB;  // 100 flop per byte: half of 500 TFLOP/s, 4 ms; 10 ms of traffic
  EXPECT_DOUBLE_EQ(priced(attention, constants).seconds.value(), 10e-3);
  attention.traffic = 1_GB;  // 1000: 1000 / 1100 of it
  EXPECT_NEAR(priced(attention, constants).seconds.value(), 2.2e-3, 1e-9);
  // A kernel of half that rate multiplies 2 ms longer and waits as long for what it loads.
  constants.attention_of["efficient"] = {Ratio(0.5), Ratio(0.5), {}};
  const Nature efficient{.efficient = true};
  EXPECT_NEAR(priced(attention, constants, efficient).seconds.value(), 4.2e-3, 1e-9);
}

TEST(Attention, AttentionHasItsOwnConstants) {
  step::Work attention;
  attention.kind = step::WorkKind::attention;
  attention.dtype = facts::DType::bf16;
  attention.flops = 1_TFLOP;
  // 1e12 / (0.5 * 1000e12) = 2 ms forward, 1e12 / (0.25 * 1000e12) = 4 ms backward.
  EXPECT_DOUBLE_EQ(priced(attention, halves()).seconds.value(), 2e-3);
  attention.backward = true;
  EXPECT_DOUBLE_EQ(priced(attention, halves()).seconds.value(), 4e-3);
}

TEST(Attention, AttentionKernelsHaveTheirOwnRates) {
  facts::Gpu gpu = test::round_machine().gpu;
  facts::EfficiencyConstants constants = test::halves();
  constants.attention_of["efficient"] = {Ratio(0.5), Ratio(0.25), {}};
  constants.attention_of["fp32"] = {Ratio(0.2), Ratio(0.1), {}};
  constants.attention_of["fp32_vector"] = {Ratio(0.6), Ratio(0.3), {}};
  step::Work work;
  work.kind = step::WorkKind::attention;
  work.dtype = facts::DType::bf16;
  work.flops = Flops(1e15);
  Missing missing;
  const auto seconds = [&](const Nature& nature) {
    return time_of(work, gpu, constants, missing, nature)->seconds.value();
  };
  Nature efficient;
  efficient.efficient = true;
  EXPECT_NEAR(seconds({}), 1.0 / 0.5, 1e-9);
  EXPECT_NEAR(seconds(efficient), 1.0 / 0.25, 1e-9);
  work.backward = true;
  EXPECT_NEAR(seconds(efficient), 1.0 / (0.25 * 0.25), 1e-9);
  work.dtype = facts::DType::fp32;  // of FlashAttention-2's share of 500 TFLOP/s of tf32
  EXPECT_NEAR(seconds(efficient), 1.0 / (0.5 * 0.25 * 0.1), 1e-9);
  gpu.compute_capability = 7.0;  // of 100 of fp32
  EXPECT_NEAR(seconds(efficient), 1.0 / (0.3 * 0.1), 1e-9);
}

TEST(Attention, TheEfficientKernelByHeadsAndSharedMemory) {
  facts::Gpu gpu = test::round_machine().gpu;
  gpu.compute_capability = 8.0;
  facts::EfficiencyConstants constants = test::halves();
  constants.attention_of["efficient"] = {Ratio(0.5), Ratio(0.5), {}};
  constants.attention_of["efficient_small"] = {Ratio(0.5), Ratio(0.5), {}};
  constants.attention_of["efficient_wide"] = {Ratio(0.25), Ratio(0.25), {}};
  step::Work work;
  work.kind = step::WorkKind::attention;
  work.dtype = facts::DType::bf16;
  work.flops = Flops(1e15);
  Missing missing;
  const auto seconds = [&](std::int64_t head) {
    work.k = head;
    const Nature nature{.efficient = true};
    return time_of(work, gpu, constants, missing, nature)->seconds.value();
  };
  EXPECT_NEAR(seconds(128), 1.0 / 0.25, 1e-9);
  EXPECT_NEAR(seconds(64), 1.0 / 0.25, 1e-9);
  EXPECT_NEAR(seconds(96), 1.0 / (0.25 * 0.75), 1e-9);  // three quarters of 128
  EXPECT_NEAR(seconds(256), 1.0 / (0.25 * 0.25), 1e-9);
  gpu.compute_capability = 12.0;  // 99 KB for a block
  EXPECT_NEAR(seconds(128), 1.0 / (0.25 * 0.5), 1e-9);
  EXPECT_NEAR(seconds(256), 1.0 / (0.25 * 0.25), 1e-9);  // needs less, so it fits
  gpu.compute_capability = 7.5;                          // no other kernel, the same heads
  EXPECT_NEAR(seconds(96), 1.0 / (0.5 * 0.75), 1e-9);
}

// 100 TFLOP/s of 128 lanes at two operations a cycle, 16 exponentials each: 6.25 T exponentials/s.
// A score of a head of 128 takes 512 / 500e12 s = 1.024 ps, 0.16 ps of them for its exponential.
TEST(Attention, ExponentialsTakeAsLongForNarrowHeads) {
  facts::Gpu gpu = round_machine().gpu;
  step::Work work;
  work.kind = step::WorkKind::attention;
  work.dtype = facts::DType::bf16;
  Missing missing;
  facts::EfficiencyConstants constants = halves();
  constants.attention_of["mxfp8"] = {Ratio(0.25), Ratio(0.125), {}};
  const auto picoseconds = [&](std::int64_t head) {  // of a score
    work.k = head;
    work.flops = Flops(1e12 * (work.backward ? 10.0 : 4.0) * static_cast<double>(head));
    return time_of(work, gpu, constants, missing)->seconds.value();
  };
  EXPECT_NEAR(picoseconds(128), 1.024, 1e-9);
  EXPECT_NEAR(picoseconds(64), 0.864 / 2.0 + 0.16, 1e-9);
  EXPECT_NEAR(picoseconds(256), 0.864 * 2.0 + 0.16, 1e-9);
  gpu.compute_capability = 10.3;  // twice as many exponentials
  EXPECT_NEAR(picoseconds(128), 0.864 + 0.08, 1e-9);
  gpu.compute_capability = 10.0;
  work.dtype = facts::DType::fp8;  // a share of its own, of 2000 TFLOP/s
  EXPECT_NEAR(picoseconds(64), 0.864 / 2.0 + 0.16, 1e-9);
  work.dtype = facts::DType::bf16;
  work.backward = true;  // 1280 / 250e12 = 5.12 ps
  EXPECT_NEAR(picoseconds(64), (5.12 - 0.16) / 2.0 + 0.16, 1e-9);
}

}  // namespace
}  // namespace steelyard::pace
