// Convolutions on vector units, by hand and beside what was measured.
#include "pace/convolutions.h"

#include <gtest/gtest.h>

#include "pace/roofline.h"
#include "pace/small_programs.h"

namespace steelyard::pace {
namespace {

using facts::EfficiencyConstants;
using test::halves;
using test::round_machine;

// `pixels` of results of windows of 3 x 3 (or `window`), in `groups` of so many channels.
step::Work windows(ConvolutionPass pass, std::int64_t pixels, std::int64_t inputs,
                   std::int64_t outputs, std::int64_t window = 9, std::int64_t groups = 1) {
  step::Work work = test::gemm(pixels, outputs, inputs * window, facts::DType::fp32);
  if (pass == ConvolutionPass::input || pass == ConvolutionPass::strided_input) {
    work = test::gemm(pixels, inputs, outputs * window, facts::DType::fp32);
  } else if (pass == ConvolutionPass::weight) {
    work = test::gemm(outputs, inputs * window, pixels, facts::DType::fp32);
  }
  work.batch = groups;
  work.flops = Flops(work.flops.value() * static_cast<double>(groups));
  work.traffic = Bytes(4 * groups * (pixels * (inputs + outputs) + inputs * window * outputs));
  return work;
}

// One multiprocessor, no cost of tiles but what they leave empty.
constexpr FlopsPerSecond kPeak(1e12);
VectorUnits units_of(double streamed) {
  return {.peak = kPeak, .multiprocessors = 1.0, .streamed = BytesPerSecond(streamed)};
}

EfficiencyConstants plain() {
  EfficiencyConstants constants = halves();
  constants.gemm_vector = Ratio(1.0);
  constants.winograd = 2.0;
  return constants;
}

double of_products(const step::Work& work) {
  return work.flops.value() / kPeak.value();
}

TEST(Convolutions, WindowsReadEachElementNineTimes) {
  for (const auto pass :
       {ConvolutionPass::forward, ConvolutionPass::input, ConvolutionPass::weight}) {
    EXPECT_DOUBLE_EQ(reads_of_input(windows(pass, 1 << 14, 128, 256), pass), 9.0);
    EXPECT_DOUBLE_EQ(reads_of_input(windows(pass, 1 << 14, 128, 128, 9, 4), pass), 9.0);
    EXPECT_DOUBLE_EQ(reads_of_input(windows(pass, 1 << 14, 128, 256, 1), pass), 1.0);
  }
}

// Where moving tiles through memory takes too long, F(2 x 2) is one kernel that halves the time.
TEST(Convolutions, SmallTilesOfWinogradNeedNoMemory) {
  const VectorUnits slow_memory = units_of(1.0);
  for (const auto pass : {ConvolutionPass::forward, ConvolutionPass::input}) {
    const step::Work work = windows(pass, 1 << 14, 128, 128);
    EXPECT_NEAR(convolved(work, pass, slow_memory, plain()).value(), of_products(work) / 2, 1e-9);
    const step::Work five = windows(pass, 1 << 14, 128, 128, 25);
    EXPECT_NEAR(convolved(five, pass, slow_memory, plain()).value(), of_products(five), 1e-9);
  }
  const step::Work weight = windows(ConvolutionPass::weight, 1 << 14, 128, 128);
  EXPECT_NEAR(convolved(weight, ConvolutionPass::weight, slow_memory, plain()).value(),
              of_products(weight), 1e-9);
}

// F(4 x 4): 36 products for each 16 pixels where there were 144; tiles of 36 elements for 16 are
// written and read, so are 36 weights for 9.
TEST(Convolutions, LargeTilesOfWinogradMoveThroughMemory) {
  constexpr std::int64_t kPixels = 1 << 16, kChannels = 256;
  const double tensors = 2.0 * kPixels * kChannels, weight = 9.0 * kChannels * kChannels;
  const double bytes = 4.0 * (5.5 * tensors + 9.0 * weight);
  for (const auto pass :
       {ConvolutionPass::forward, ConvolutionPass::input, ConvolutionPass::weight}) {
    const step::Work work = windows(pass, kPixels, kChannels, kChannels);
    EXPECT_NEAR(convolved(work, pass, units_of(1e12), plain()).value(),
                of_products(work) / 4 + bytes / 1e12, 1e-9);
  }
}

// Tiles have 32 columns: a group of 8 channels leaves three quarters of them empty.
TEST(Convolutions, NarrowGroupsLeaveTilesEmpty) {
  const auto per_product = [](std::int64_t channels) {
    const step::Work work =
        windows(ConvolutionPass::forward, 1 << 14, channels, channels, 4, 256 / channels);
    return convolved(work, ConvolutionPass::forward, units_of(1e12), plain()).value() /
           of_products(work);
  };
  EXPECT_NEAR(per_product(32), 1.0, 1e-9);
  EXPECT_NEAR(per_product(16), 2.0, 1e-9);
  EXPECT_NEAR(per_product(8), 4.0, 1e-9);
}

TEST(Convolutions, GradientsHaveRatesOfTheirOwn) {
  EfficiencyConstants constants = plain();
  constants.convolution_weights = Ratio(0.8);
  constants.convolution_strided = Ratio(0.5);
  constants.convolution_weights_start = 0.0;
  const auto over_products = [&](ConvolutionPass pass, std::int64_t pixels) {
    const step::Work work = windows(pass, pixels, 128, 128, 1);
    return convolved(work, pass, units_of(1e12), constants).value() / of_products(work);
  };
  EXPECT_NEAR(over_products(ConvolutionPass::forward, 1 << 14), 1.0, 1e-9);
  EXPECT_NEAR(over_products(ConvolutionPass::strided_input, 1 << 14), 2.0, 1e-9);
  EXPECT_NEAR(over_products(ConvolutionPass::weight, 1 << 14), 1.25, 1e-9);
  constants.convolution_weights_start = 1024.0;  // of 1024 pixels: twice as long
  EXPECT_NEAR(over_products(ConvolutionPass::weight, 1 << 10), 2.5, 1e-9);
  EXPECT_LT(over_products(ConvolutionPass::weight, 1 << 14), 1.4);
}

// V100 in fp32 with cuDNN 7.6.2 (DeepBench): milliseconds measured, planned within 0.7 and 1.4
// times that.
TEST(Convolutions, AreAsFastAsWasMeasured) {
  struct Measured {
    std::int64_t pixels, inputs, outputs, window;
    double forward, input, weight;
  };
  EfficiencyConstants constants = plain();
  constants.winograd = 1.52;
  constants.gemm_vector_feed = 4.0;
  constants.gemm_start = 64.0;
  constants.gemm_quantisation = 0.7;
  constants.convolution_weights = Ratio(0.8);
  constants.convolution_weights_start = 256.0;
  const VectorUnits v100{
      .peak = FlopsPerSecond(15.7e12), .multiprocessors = 80.0, .streamed = BytesPerSecond(817e9)};
  for (const Measured& row : {Measured{16 * 84 * 20, 256, 256, 9, 0.887, 0.883, 0.857},
                              Measured{16 * 175 * 40, 128, 128, 9, 1.155, 1.113, 1.226},
                              Measured{16 * 28 * 28, 256, 512, 9, 0.801, 0.859, 0.766},
                              Measured{16 * 14 * 14, 512, 512, 9, 0.506, 0.499, 0.477},
                              Measured{16 * 28 * 28, 128, 512, 1, 0.136, 0.147, 0.231},
                              Measured{16 * 14 * 14, 256, 1024, 1, 0.135, 0.186, 0.206}}) {
    for (const auto& [pass, milliseconds] : {std::pair{ConvolutionPass::forward, row.forward},
                                             std::pair{ConvolutionPass::input, row.input},
                                             std::pair{ConvolutionPass::weight, row.weight}}) {
      const step::Work work = windows(pass, row.pixels, row.inputs, row.outputs, row.window);
      const double planned = convolved(work, pass, v100, constants).value() * 1e3;
      EXPECT_GT(planned, milliseconds * 0.7) << row.inputs << " " << static_cast<int>(pass);
      EXPECT_LT(planned, milliseconds * 1.4) << row.inputs << " " << static_cast<int>(pass);
    }
  }
}

// A million results of 3 x 3: 9 million products. The library: 100 instructions for each result and
// 5 for each of its products.
TEST(Convolutions, OneChannelEachTakesInstructions) {
  EfficiencyConstants constants = plain();
  constants.depthwise_product = 25.0;
  constants.depthwise_weight_product = 115.0;
  constants.depthwise_library_result = 100.0;
  constants.depthwise_library_product = 5.0;
  const step::Work forward = windows(ConvolutionPass::forward, 10'000, 1, 1, 9, 100);
  const step::Work weight = windows(ConvolutionPass::weight, 10'000, 1, 1, 9, 100);
  const auto seconds = [&](const step::Work& work, ConvolutionPass pass, bool own) {
    return issued(work, pass, own, 1e12, constants).value();
  };
  EXPECT_NEAR(seconds(forward, ConvolutionPass::forward, true), 9e6 * 25 / 1e12, 1e-12);
  EXPECT_NEAR(seconds(weight, ConvolutionPass::weight, true), 9e6 * 115 / 1e12, 1e-12);
  for (const bool weights : {false, true}) {
    EXPECT_NEAR(seconds(weights ? weight : forward,
                        weights ? ConvolutionPass::weight : ConvolutionPass::forward, false),
                1e6 * (100 + 9 * 5) / 1e12, 1e-12);
  }
}

// The longer: moving the tensors, three times as long as their bytes take, or instructions.
TEST(Convolutions, OneChannelEachWaitsForMemoryOrInstructions) {
  EfficiencyConstants constants = plain();
  constants.depthwise_product = 10.0;
  const facts::Gpu gpu = round_machine().gpu;
  const step::Work work = windows(ConvolutionPass::forward, 10'000, 1, 1, 9, 100);
  const auto seconds = [&](bool own) {
    Missing missing;
    const Nature nature{
        .traffic = 3.0, .pass = ConvolutionPass::forward, .depthwise = true, .own_depthwise = own};
    return time_of(work, gpu, constants, missing, nature)->seconds.value();
  };
  EXPECT_NEAR(seconds(false), 3.0 * work.traffic.real() / 1e12, 1e-12);  // half of 2 TB/s
  constants.depthwise_product = 1000.0;
  // 100 TFLOP/s are 50e12 instructions of 128 lanes per cycle, as many as begin.
  EXPECT_NEAR(seconds(true), 9e6 * 1000 / 50e12, 1e-12);
}

}  // namespace
}  // namespace steelyard::pace
