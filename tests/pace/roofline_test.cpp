#include "pace/roofline.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>

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

double shape(const step::Work& work, const facts::EfficiencyConstants& constants) {
  return shape_efficiency(work, round_machine().gpu, constants).value();
}

TEST(Roofline, ATileThatSticksOutCostsAWholeOne) {
  // No costs but the tiles' edges: 384 rows are three tiles of 128, 8 rows half of one of 16.
  EXPECT_DOUBLE_EQ(shape(gemm(384, 384, 384), halves()), 1.0);
  EXPECT_DOUBLE_EQ(shape(gemm(8, 1024, 1024), halves()), 0.5);
}

TEST(Roofline, SmallTilesAreFedMoreSlowly) {
  facts::EfficiencyConstants constants = halves();
  constants.gemm_feed = 32.0;
  // 64 columns: the best tile is 256 x 64, 1 / (1 + 32 (1/256 + 1/64)) over that of 256 x 128.
  EXPECT_NEAR(shape(gemm(65536, 64, 4096), constants), (1.0 / 1.625) / (1.0 / 1.375), 1e-9);
  // Vector units are fed by gemm_vector_feed, 0 here.
  EXPECT_DOUBLE_EQ(shape(gemm(65536, 64, 4096, facts::DType::fp32), constants), 1.0);
}

TEST(Roofline, AFewTilesDoNotFillTheProcessor) {
  facts::EfficiencyConstants constants = halves();
  constants.multiprocessors = {{"round-gpu", 64.0}};
  constants.gemm_quantisation = 1.0;
  // 16 tiles of 16 x 16, too shallow to be split: a quarter of 64 processors.
  EXPECT_DOUBLE_EQ(shape(gemm(64, 64, 32), constants), 0.25);
  // 128 deep enough parts of one tile fill them: split along the depth.
  EXPECT_DOUBLE_EQ(shape(gemm(128, 128, 1 << 20), constants), 1.0);
}

TEST(Roofline, AHalvedRateIsReachedSinceTheUnitsCouldDoMore) {
  facts::EfficiencyConstants constants = halves();
  facts::Gpu gpu = round_machine().gpu;
  gpu.compute_capability = 8.6;
  constants.matrix_over_vector = {{"8.6", 20.0}};  // 20 x 100 TFLOP/s, the sheet says 1000
  constants.gemm_peak = Ratio(0.95);
  Missing missing;
  const step::Work work = gemm(8192, 8192, 8192);
  // Half of 2000 is more than 0.95 of 1000.
  EXPECT_NEAR(time_of(work, gpu, constants, missing)->seconds.value(), work.flops.value() / 950e12,
              1e-9);
}

TEST(Roofline, RaggedSidesLeaveTilesHardlyFuller) {
  const facts::EfficiencyConstants constants = halves();
  EXPECT_NEAR(shape(gemm(1024, 50257, 768), constants), 1.0, 1e-3);
  EXPECT_DOUBLE_EQ(shape(gemm(1024, 50304, 768), constants), 1.0);
  EXPECT_NEAR(shape(gemm(1024, 50257, 768, facts::DType::fp32), constants), 1.0, 1e-3);
}

TEST(Roofline, SomeKernelsAreSlowerThanTheirBytes) {
  step::Work work;
  work.traffic = 4_GB;
  Missing missing;
  const facts::Gpu gpu = round_machine().gpu;
  // 4e9 B at 1 TB/s, half as long again.
  EXPECT_DOUBLE_EQ(time_of(work, gpu, halves(), missing, {.traffic = 1.5})->seconds.value(), 6e-3);
  // A convolution on matrix units copies its tensors there and back first.
  facts::EfficiencyConstants constants = halves();
  constants.convolution_layout = 1.0;
  step::Work convolution = gemm(8, 8192, 8192);
  const double alone = time_of(convolution, gpu, constants, missing)->seconds.value();
  const double copied =
      time_of(convolution, gpu, constants, missing, {.copies_channels = true})->seconds.value();
  EXPECT_NEAR(copied, 3.0 * alone, 1e-9);
  const step::Work product = gemm(4096, 4096, 4096);  // as all of a scan's
  const double usual = time_of(product, round_machine().gpu, halves(), missing)->seconds.value();
  const Nature scan{.traffic = 2.0, .slow_products = true};
  EXPECT_NEAR(time_of(product, round_machine().gpu, halves(), missing, scan)->seconds.value(),
              2.0 * usual, 1e-12);
}

// 10,922 tokens of an expert are no multiple of anything; the rows of 2,048 channels are.
TEST(Roofline, TheNumberOfTokensLeavesRowsAligned) {
  facts::EfficiencyConstants constants = halves();
  constants.gemm_unaligned = Ratio(0.01);
  facts::Gpu gpu = round_machine().gpu;
  gpu.compute_capability = 9.0;
  Missing missing;
  const auto seconds = [&](const step::Work& work, TokenSide tokens) {
    return time_of(work, gpu, constants, missing, {.tokens = tokens})->seconds.value();
  };
  const step::Work forward = gemm(10922, 2048, 4096);
  const step::Work weight = gemm(2048, 4096, 10922);
  EXPECT_GT(seconds(forward, TokenSide::none), 5 * seconds(forward, TokenSide::rows));
  EXPECT_GT(seconds(weight, TokenSide::none), 5 * seconds(weight, TokenSide::depth));
  // A vocabulary of 50,257 is the length of rows.
  const step::Work head = gemm(8192, 50257, 4096);
  EXPECT_DOUBLE_EQ(seconds(head, TokenSide::rows), seconds(head, TokenSide::none));
}

// 24 groups of 128 channels: 3 % of the peak at 64 channels, twice that at 128.
TEST(Roofline, GroupsThatCudnnHasNoKernelForAreSlow) {
  facts::EfficiencyConstants constants = halves();
  constants.grouped_convolution = Ratio(0.03);
  const facts::Gpu gpu = round_machine().gpu;
  Missing missing;
  step::Work work = gemm(8192, 128, 9 * 128);
  work.batch = 24;
  work.flops = Flops(2.0 * 8192 * 128 * 9 * 128 * 24);
  const Nature last{.convolution = true, .channels_last = true};
  const double peak = gpu.peak.bf16->value();
  const auto seconds = [&](const step::Work& of, const Nature& nature) {
    return time_of(of, gpu, constants, missing, nature)->seconds.value();
  };
  EXPECT_NEAR(seconds(work, last), work.flops.value() / (0.06 * peak), 1e-9);
  EXPECT_LT(seconds(work, {.convolution = true}), seconds(work, last) / 5);
  work.batch = 32;  // ResNeXt's
  EXPECT_LT(seconds(work, last), seconds(work, {.convolution = true}) * 1.01);
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
  EXPECT_NEAR(host_time_of(work, gpu, constants, {}, missing)->value(), 1.0, 1e-9);
  work.kind = step::WorkKind::host;  // 10 GB at 0.5 x 40 GB/s
  const HostShare host{.memory = BytesPerSecond(40e9),
                       .drive_read = BytesPerSecond(5e9),
                       .drive_write = BytesPerSecond(2e9)};
  EXPECT_NEAR(host_time_of(work, gpu, constants, host, missing)->value(), 0.5, 1e-9);
  work.kind = step::WorkKind::drive_read;
  EXPECT_NEAR(host_time_of(work, gpu, constants, host, missing)->value(), 2.0, 1e-9);
  work.kind = step::WorkKind::drive_write;
  EXPECT_NEAR(host_time_of(work, gpu, constants, host, missing)->value(), 5.0, 1e-9);
  EXPECT_FALSE(missing.any());
  gpu.host_link = {};
  work.kind = step::WorkKind::transfer;
  EXPECT_FALSE(host_time_of(work, gpu, constants, {}, missing));
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
  facts::EfficiencyConstants constants = halves();
  constants.gemm = Ratio(0.9);  // of units that are taken to run at 250 / 800 of the sheet's rate
  constants.best_product = Ratio(0.8);
  Missing missing;
  step::Work work = gemm(8192, 8192, 8192);
  const auto time = time_of(work, machine.gpu, constants, missing);
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

TEST(Roofline, ManyUnalignedProductsAtOnceRunOnVectorUnits) {
  // 108 elements of bf16 are 216 bytes, no multiple of 16; 112 are.
  const facts::Gpu gpu = test::round_machine().gpu;
  step::Work one = test::gemm(2048, 2048, 108), many = one, even = test::gemm(2048, 2048, 112);
  many.batch = even.batch = 64;
  many.flops = one.flops * 64.0;
  even.flops = even.flops * 64.0;
  Missing missing;
  const auto seconds = [&](const step::Work& work) {
    return time_of(work, gpu, test::halves(), missing)->seconds.value();
  };
  // A quarter of 100 TFLOP/s instead of half of 1000; tiles and waves cost each of them a little.
  EXPECT_NEAR(seconds(many) / seconds(even), 500.0 / 25.0, 3.0);
  // Of experts' products the tokens may be odd.
  step::Work tokens = test::gemm(2041, 2048, 1024), whole_tokens = test::gemm(2048, 2048, 1024);
  tokens.batch = whole_tokens.batch = 8;
  const auto grouped = [&](const step::Work& work) {
    return time_of(work, gpu, test::halves(), missing, Nature{.grouped = true})->seconds.value();
  };
  EXPECT_NEAR(grouped(tokens) / grouped(whole_tokens), 1.0, 0.02);
}

// 100 fp32 TFLOP/s, 128 lanes in a multiprocessor: 64 lanes make half of that.
TEST(Roofline, UnalignedProductsGetSoManyPerCycle) {
  facts::Gpu gpu = test::round_machine().gpu;
  facts::EfficiencyConstants constants = test::halves();
  constants.gemm_unaligned = Ratio(2.0);
  const step::Work odd = test::gemm(8192, 8192, 8190), even = test::gemm(8192, 8192, 8192);
  Missing missing;
  const auto rate = [&](const step::Work& work, const Nature& nature) {
    const auto time = time_of(work, gpu, constants, missing, nature);
    return work.flops.value() / time->seconds.value();
  };
  const double shape = shape_efficiency(odd, gpu, constants).value();
  EXPECT_NEAR(rate(odd, {}) / 1e12, 2.0 * 100.0 / 2.0 * shape, 1.0);
  EXPECT_NEAR(rate(even, {}) / 1e12, 500.0 * shape, 5.0);
  // On a processor with 64 lanes the same peak means twice as many multiprocessors.
  gpu.compute_capability = 8.0;
  EXPECT_NEAR(rate(odd, {}) / 1e12, 2.0 * 100.0 * shape, 2.0);
  // Libraries that have no such kernels take the vector units.
  Nature old;
  old.vector_unaligned = true;
  EXPECT_NEAR(rate(odd, old) / 1e12, 0.25 * 100.0 * shape, 1.0);
  EXPECT_NEAR(rate(even, old) / 1e12, 500.0 * shape, 5.0);
}

// A product of cuBLAS for each group, on four streams; in a CUDA graph the host launches none.
TEST(Roofline, GroupedProductsAreLaunchedOneByOne) {
  step::Work work = gemm(128, 128, 128);
  work.batch = 16;
  facts::EfficiencyConstants constants = halves();
  constants.kernel_floor = Seconds(1.0);
  Missing missing;
  const auto floors = [&](const Nature& nature) {
    return std::round(
        time_of(work, round_machine().gpu, constants, missing, nature)->seconds.value());
  };
  const Nature each{.grouped = true, .each_group = true};
  EXPECT_EQ(launches_of(work, {}), 1.0);
  EXPECT_EQ(launches_of(work, each), 16.0);
  EXPECT_EQ(launches_of(work, {.in_graph = true}), 0.0);
  EXPECT_EQ(floors({}), 1.0);
  EXPECT_EQ(floors(each), 4.0);
  EXPECT_EQ(floors({.in_graph = true}), 1.0);
  work.kind = step::WorkKind::memory;  // casts, one behind the other
  EXPECT_EQ(floors(each), 16.0);
}

// 19 and 9 GB/s for each multiprocessor, of 82 that one keeps in flight.
TEST(Roofline, AMultiprocessorKeepsSoMuchInFlight) {
  facts::Gpu gpu = test::round_machine().gpu;
  gpu.id = "wide";
  facts::EfficiencyConstants constants = test::halves();
  const auto share = [&](double gb_per_s) {
    return streamed_share(gpu, BytesPerSecond(gb_per_s * 1e9), constants).value();
  };
  constants.multiprocessors["wide"] = 100.0;
  EXPECT_EQ(share(1900.0), 0.5);  // nobody says how much that is
  constants.loads_in_flight = Bytes(48 * 1024);
  constants.memory_latency = Seconds(600e-9);
  EXPECT_NEAR(share(1900.0), 0.5 / (1.0 + 19.0 / 81.92), 1e-9);
  EXPECT_NEAR(share(900.0), 0.5 / (1.0 + 9.0 / 81.92), 1e-9);
  // Loads of four elements of 16 bits keep half of it in flight.
  const Ratio half = streamed_share(gpu, BytesPerSecond(1900e9), constants, 0.5);
  EXPECT_NEAR(half.value(), 0.5 / (1.0 + 19.0 / 40.96), 1e-9);
  // Turing has half of the threads.
  constants.loads_in_flight_of["7.5"] = 0.5;
  gpu.compute_capability = 7.0;
  EXPECT_NEAR(share(900.0), 0.5 / (1.0 + 9.0 / 81.92), 1e-9);
  gpu.compute_capability = 7.5;
  EXPECT_NEAR(share(900.0), 0.5 / (1.0 + 9.0 / 40.96), 1e-9);
}

// 900 of 1000 TFLOP/s where 800 are usual: the units run at 9/8 of what the sheet promises.
TEST(Roofline, ACardsBestProductScalesItsUnits) {
  facts::Gpu gpu = test::round_machine().gpu;
  facts::EfficiencyConstants constants = test::halves();
  constants.best_product = Ratio(0.8);
  Missing missing;
  const step::Work work = gemm(8192, 8192, 8192);
  const auto seconds = [&] { return time_of(work, gpu, constants, missing)->seconds.value(); };
  const double before = seconds();
  gpu.measured_bf16 = {FlopsPerSecond(900e12), facts::Provenance::catalogue};
  EXPECT_NEAR(seconds(), before * 8.0 / 9.0, 1e-9);
  gpu.peak.bf16 = {};  // measured in fp16 then
  const step::Work half = gemm(8192, 8192, 8192, facts::DType::fp16);
  const auto answer = time_of(half, gpu, constants, missing);
  EXPECT_NEAR(answer->seconds.value(), before * 8.0 / 9.0, 1e-9);
}

TEST(Roofline, AStepOfTheOptimizerIsSoManyKernels) {
  step::Work work;
  work.traffic = Bytes(20 * 4 * 1000);
  EXPECT_EQ(launches_of(work, {}), 1.0);
  Nature loop;
  loop.kernels = 9.0;
  loop.passes = 20.0;
  EXPECT_EQ(launches_of(work, loop), 9.0);
  Nature lists = loop;
  lists.together = true;
  EXPECT_NEAR(launches_of(work, lists), 9.0 / 48.0, 1e-12);
  work.traffic = Bytes(20LL * 4 * 10 * 320 * 65536);  // ten times what one kernel takes
  EXPECT_NEAR(launches_of(work, lists), 90.0, 1e-9);
}

// Little's law is a hard limit that kernels meet the more softly the nearer both roofs are.
TEST(Roofline, TheSharperTheRoofsTheLessTheLowerOneHidesOfTheOther) {
  facts::EfficiencyConstants constants = halves();
  constants.multiprocessors_else = 100.0;
  constants.loads_in_flight = Bytes(60'000);
  constants.memory_latency = Seconds(600e-9);  // 100 GB/s of each
  const auto share = [&](double bandwidth, double sharpness) {
    constants.loads_sharpness = sharpness;
    return streamed_share(facts::Gpu(), BytesPerSecond(bandwidth), constants, 1.0).value();
  };
  EXPECT_NEAR(share(10e12, 1.0), 0.5 / 2.0, 1e-12);
  EXPECT_NEAR(share(10e12, 2.0), 0.5 / std::sqrt(2.0), 1e-12);
  EXPECT_NEAR(share(2.5e12, 1.0), 0.5 / 1.25, 1e-12);
  EXPECT_NEAR(share(2.5e12, 2.0), 0.5 / std::sqrt(1.0625), 1e-12);
  EXPECT_NEAR(share(100e12, 2.0) * 100.0, 50.0 * 0.1, 0.05);  // far above: what is in flight
}

// Matrix units multiply windows as they are.
TEST(Roofline, WindowsOfThreeByThreeTakeFewerProductsOnVectorUnits) {
  facts::EfficiencyConstants constants = halves();
  constants.winograd = 2.0;
  const auto seconds = [&](facts::DType dtype, ConvolutionPass pass) {
    constexpr std::int64_t kPixels = 1 << 16, kChannels = 128, kWindow = 9;
    step::Work work = test::gemm(kPixels, kChannels, kChannels * kWindow, dtype);
    work.traffic =
        Bytes(facts::bytes_of(dtype) * (kPixels * 2 * kChannels + kChannels * kWindow * kChannels));
    Missing missing;
    const Nature nature{.convolution = true, .pass = pass};
    return time_of(work, round_machine().gpu, constants, missing, nature)->seconds.value();
  };
  using facts::DType;
  EXPECT_LT(seconds(DType::fp32, ConvolutionPass::forward),
            0.51 * seconds(DType::fp32, ConvolutionPass::none));
  EXPECT_EQ(seconds(DType::bf16, ConvolutionPass::forward),
            seconds(DType::bf16, ConvolutionPass::none));
}

}  // namespace
}  // namespace steelyard::pace
