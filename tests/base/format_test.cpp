#include "base/format.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <random>

namespace steelyard {
namespace {

using namespace literals;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();

TEST(Format, BytesAreBinaryWithOneDecimal) {
  EXPECT_EQ(to_text(Bytes(0)), "0 B");
  EXPECT_EQ(to_text(512_B), "512 B");
  EXPECT_EQ(to_text(Bytes(1023)), "1023 B");
  EXPECT_EQ(to_text(1_KiB), "1.0 KiB");
  EXPECT_EQ(to_text(80_GiB), "80.0 GiB");
  EXPECT_EQ(to_text(80_GB), "74.5 GiB");            // 80e9 / 2^30 = 74.506
  EXPECT_EQ(to_text(Bytes(-1572864)), "-1.5 MiB");  // 1.5 * 2^20
  EXPECT_EQ(to_text(2_TiB), "2.0 TiB");
}

TEST(Format, BytesThatRoundUpToTheNextUnitTakeIt) {
  EXPECT_EQ(to_text(Bytes((std::int64_t{1} << 30) - 1)), "1.0 GiB");
  EXPECT_EQ(to_text(Bytes(1'072'693'248)), "1023.0 MiB");  // 1023 * 2^20
}

TEST(Format, BytesToTheEndsOfTheirRange) {
  EXPECT_EQ(to_text(Bytes(kLargest)), "8.0 EiB");
  EXPECT_EQ(to_text(Bytes(kLeast)), "-8.0 EiB");
}

TEST(Format, RatesAreDecimalWithThreeDigits) {
  EXPECT_EQ(to_text(BytesPerSecond(3.35e12)), "3.35 TB/s");
  EXPECT_EQ(to_text(900_GB_per_s), "900 GB/s");
  EXPECT_EQ(to_text(BytesPerSecond(999.6e9)), "1 TB/s");
  EXPECT_EQ(to_text(BytesPerSecond(0)), "0 B/s");
  EXPECT_EQ(to_text(BytesPerSecond(2.5e20)), "250000 PB/s");
  EXPECT_EQ(to_text(989_TFLOP_per_s), "989 TFLOP/s");
  EXPECT_EQ(to_text(Flops(2.3e15)), "2.3 PFLOP");
}

TEST(Format, Durations) {
  EXPECT_EQ(to_text(Seconds(0)), "0 s");
  EXPECT_EQ(to_text(Seconds(1.24)), "1.24 s");
  EXPECT_EQ(to_text(315_ms), "315 ms");
  EXPECT_EQ(to_text(Seconds(0.9999)), "1 s");
  EXPECT_EQ(to_text(12.5_us), "12.5 us");
  EXPECT_EQ(to_text(Seconds(3e-9)), "3 ns");
  EXPECT_EQ(to_text(Seconds(59.99)), "1 min 00 s");
  EXPECT_EQ(to_text(Seconds(125)), "2 min 05 s");
  EXPECT_EQ(to_text(Seconds(7500)), "2 h 05 min");
  EXPECT_EQ(to_text(Seconds(3599.9)), "1 h 00 min");
  EXPECT_EQ(to_text(Seconds(86400 * 3 + 3600 * 4)), "3 d 04 h");
  EXPECT_EQ(to_text(Seconds(-1.5)), "-1.5 s");
  EXPECT_EQ(to_text(Seconds(1e18)), "1.00e+18 s");
}

TEST(Format, Throughputs) {
  EXPECT_EQ(to_text(SamplesPerSecond(812)), "812 samples/s");
  EXPECT_EQ(to_text(SamplesPerSecond(0.4231)), "0.423 samples/s");
  EXPECT_EQ(to_text(TokensPerSecond(11'412)), "11,400 tokens/s");
  EXPECT_EQ(to_text(TokensPerSecond(999.7)), "1,000 tokens/s");
}

TEST(Format, Counts) {
  EXPECT_EQ(to_text(Parameters(8'030'261'248)), "8.03 B");
  EXPECT_EQ(to_text(Parameters(124'439'808)), "124 M");
  EXPECT_EQ(to_text(Parameters(999)), "999");
  EXPECT_EQ(to_text(Parameters(0)), "0");
  EXPECT_EQ(compact(1'420'000), "1.42 M");
  EXPECT_EQ(grouped(8'030'261'248), "8,030,261,248");
  EXPECT_EQ(grouped(0), "0");
  EXPECT_EQ(grouped(-1000), "-1,000");
  EXPECT_EQ(grouped(100), "100");
  EXPECT_EQ(grouped(kLeast), "-9,223,372,036,854,775,808");
}

TEST(Format, Percents) {
  EXPECT_EQ(percent(Ratio(0.38)), "38 %");
  EXPECT_EQ(percent(Ratio(0.004)), "0.4 %");
  EXPECT_EQ(percent(Ratio(0)), "0 %");
  EXPECT_EQ(percent(Ratio(0.0996)), "10 %");
  EXPECT_EQ(percent(Ratio(1e-6)), "<0.1 %");
  EXPECT_EQ(percent(Ratio(-1e-6)), ">-0.1 %");
  EXPECT_EQ(percent(Ratio(-0.12)), "-12 %");
  EXPECT_EQ(percent(Ratio(25)), "2,500 %");
}

TEST(Format, WhatIsNoNumberIsSaidInWords) {
  EXPECT_EQ(to_text(Seconds(kInfinity)), "unlimited");
  EXPECT_EQ(to_text(BytesPerSecond(-kInfinity)), "-unlimited");
  EXPECT_EQ(percent(Ratio(std::numeric_limits<double>::quiet_NaN())), "undefined");
}

// Reading the printed number back gives the value to within the printed digits.
TEST(Format, PrintedBytesAreNearTheirValue) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 2000; ++round) {
    const auto value = static_cast<std::int64_t>(random() >> (1 + random() % 60));
    const std::string text = to_text(Bytes(value));
    const std::string units = "BKMGTPE";
    const double scale = std::pow(1024.0, units.find(text[text.find(' ') + 1]));
    EXPECT_NEAR(std::stod(text) * scale, static_cast<double>(value), 0.0501 * scale) << text;
  }
}

}  // namespace
}  // namespace steelyard
