#include "pace/roofline.h"

#include <gtest/gtest.h>

#include "pace/small_programs.h"

namespace steelyard::pace {
namespace {

using test::gemm;
using test::halves;
using test::round_machine;
using namespace literals;

WorkTime priced(const step::Work& work, const facts::EfficiencyConstants& constants) {
  Missing missing;
  const auto time = time_of(work, round_machine().gpu, constants, missing);
  EXPECT_TRUE(time.has_value());
  EXPECT_FALSE(missing.any());
  return time.value_or(WorkTime());
}

TEST(Roofline, ALargeGemmRunsAtItsShareOfThePeak) {
  // 2 * 8192^3 = 1.0995e12 flop at 0.5 * 1000e12 flop/s = 2.199 ms.
  // Traffic: 3 * 8192^2 * 2 B = 403 MB at 1 TB/s = 0.403 ms: arithmetic decides.
  const WorkTime time = priced(gemm(8192, 8192, 8192), halves());
  EXPECT_NEAR(time.seconds.value(), 2.0 * 8192.0 * 8192.0 * 8192.0 / 500e12, 1e-12);
  EXPECT_TRUE(time.arithmetic_bound);
}

TEST(Roofline, AThinGemmIsBoundByReadingItsWeights) {
  // 8 x 8192 x 8192: 1.07 Gflop = 2.1 us of arithmetic; traffic (8*8192 + 8192^2 + 8*8192) * 2 B
  // = 134,479,872 B at 1 TB/s = 134.5 us.
  const WorkTime time = priced(gemm(8, 8192, 8192), halves());
  EXPECT_NEAR(time.seconds.value(), 134'479'872.0 / 1e12, 1e-12);
  EXPECT_FALSE(time.arithmetic_bound);
}

TEST(Roofline, EachSideOfAGemmSaturates) {
  facts::EfficiencyConstants constants = halves();
  constants.gemm_half_rows = Tokens(128);
  // 384 / (384 + 128) = 3/4 on each of three sides: 27/64.
  EXPECT_DOUBLE_EQ(shape_efficiency(gemm(384, 384, 384), constants).value(), 27.0 / 64.0);
  // At the half side, half.
  constants.gemm_half_rows = Tokens(4096);
  EXPECT_DOUBLE_EQ(shape_efficiency(gemm(4096, 4096, 4096), constants).value(), 1.0 / 8.0);
}

TEST(Roofline, AFewTilesDoNotFillTheProcessor) {
  facts::EfficiencyConstants constants = halves();
  constants.gemm_half_elements = 1'048'576;
  // 1024 x 1024 results are the half.
  EXPECT_DOUBLE_EQ(shape_efficiency(gemm(1024, 1024, 64), constants).value(), 0.5);
  // Three of them in a batch: 3 / (3 + 1).
  step::Work batched = gemm(1024, 1024, 64);
  batched.batch = 3;
  EXPECT_DOUBLE_EQ(shape_efficiency(batched, constants).value(), 0.75);
}

TEST(Roofline, RaggedSidesLoseOnTensorCoresOnly) {
  const facts::EfficiencyConstants constants = halves();
  // 50257 is no multiple of 8 elements (16 bytes of bf16); 50304 is.
  EXPECT_DOUBLE_EQ(shape_efficiency(gemm(1024, 50257, 768), constants).value(), 0.5);
  EXPECT_DOUBLE_EQ(shape_efficiency(gemm(1024, 50304, 768), constants).value(), 1.0);
  EXPECT_DOUBLE_EQ(shape_efficiency(gemm(1024, 50257, 768, facts::DType::fp32), constants).value(),
                   1.0);
}

TEST(Roofline, AttentionHasItsOwnConstants) {
  step::Work attention;
  attention.kind = step::WorkKind::attention;
  attention.dtype = facts::DType::bf16;
  attention.flops = 1_TFLOP;
  // 1e12 / (0.5 * 1000e12) = 2 ms forward, 1e12 / (0.25 * 1000e12) = 4 ms backward.
  EXPECT_DOUBLE_EQ(priced(attention, halves()).seconds.value(), 2e-3);
  attention.backward = true;
  EXPECT_DOUBLE_EQ(priced(attention, halves()).seconds.value(), 4e-3);
}

TEST(Roofline, APointwiseKernelMovesBytes) {
  step::Work work;
  work.traffic = 4_GB;
  // 4e9 B at 0.5 * 2e12 B/s.
  const WorkTime time = priced(work, halves());
  EXPECT_DOUBLE_EQ(time.seconds.value(), 4e-3);
  EXPECT_FALSE(time.arithmetic_bound);
}

TEST(Roofline, CopiesTakeTheHostLinkAndTheHostsWorkItsMemory) {
  facts::EfficiencyConstants constants = halves();
  constants.host_link = Ratio(0.5);
  constants.memory = Ratio(0.5);
  facts::Gpu gpu = round_machine().gpu;
  gpu.host_link = {BytesPerSecond(20e9), facts::Provenance::given};
  step::Work work;
  work.traffic = 10_GB;
  Missing missing;
  work.kind = step::WorkKind::transfer;  // 10 GB at 0.5 x 20 GB/s
  EXPECT_NEAR(host_time_of(work, gpu, constants, BytesPerSecond(), missing)->value(), 1.0, 1e-9);
  work.kind = step::WorkKind::host;  // 10 GB at 0.5 x 40 GB/s
  EXPECT_NEAR(host_time_of(work, gpu, constants, BytesPerSecond(40e9), missing)->value(), 0.5,
              1e-9);
  EXPECT_FALSE(missing.any());
  gpu.host_link = {};
  work.kind = step::WorkKind::transfer;
  EXPECT_FALSE(host_time_of(work, gpu, constants, BytesPerSecond(), missing));
  EXPECT_TRUE(missing.any());
}

TEST(Roofline, EveryKernelStartsAndDrains) {
  facts::EfficiencyConstants constants = halves();
  constants.kernel_floor = Seconds(3e-6);
  step::Work work;
  work.traffic = Bytes(512);
  // 512 B at 1 TB/s take half a nanosecond.
  EXPECT_DOUBLE_EQ(priced(work, constants).seconds.value(), 3e-6 + 0.512e-9);
  EXPECT_FALSE(priced(gemm(8, 8, 8), constants).arithmetic_bound);
}

TEST(Roofline, ACardsBestMeasuredRateBoundsThePromise) {
  facts::Machine machine = round_machine();
  machine.gpu.measured_bf16 = {FlopsPerSecond(250e12), facts::Provenance::catalogue};
  Missing missing;
  step::Work work = gemm(8192, 8192, 8192);
  const auto time = time_of(work, machine.gpu, halves(), missing);
  ASSERT_TRUE(time.has_value());
  EXPECT_NEAR(time->seconds.value(), work.flops.value() / 250e12, 1e-12);
}

TEST(Roofline, PeaksFollowTheTypeOfTheArithmetic) {
  step::Work work = gemm(4096, 4096, 4096, facts::DType::fp32);
  const double flops = work.flops.value();
  EXPECT_NEAR(priced(work, halves()).seconds.value(), flops / 50e12, 1e-12);
  work.tf32 = true;
  EXPECT_NEAR(priced(work, halves()).seconds.value(), flops / 250e12, 1e-12);
  EXPECT_NEAR(priced(gemm(4096, 4096, 4096, facts::DType::fp8), halves()).seconds.value(),
              flops / 1000e12, 1e-12);
}

TEST(Roofline, BeforeAmpereTf32IsFp32AndBf16IsUnknown) {
  facts::Machine machine = round_machine();
  machine.gpu.name = "Old GPU";
  machine.gpu.compute_capability = 7.0;
  machine.gpu.peak.tf32 = {};
  machine.gpu.peak.bf16 = {};
  Missing missing;
  step::Work work = gemm(4096, 4096, 4096, facts::DType::fp32);
  work.tf32 = true;
  const auto tf32 = time_of(work, machine.gpu, halves(), missing);
  ASSERT_TRUE(tf32.has_value());
  EXPECT_NEAR(tf32->seconds.value(), work.flops.value() / 50e12, 1e-12);
  EXPECT_FALSE(missing.any());

  EXPECT_FALSE(time_of(gemm(64, 64, 64), machine.gpu, halves(), missing).has_value());
  EXPECT_EQ(missing.names(), std::vector<std::string>{"dense bf16 peak rate of Old GPU"});
}

}  // namespace
}  // namespace steelyard::pace
