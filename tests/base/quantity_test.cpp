#include "base/quantity.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"

namespace steelyard {
namespace {

using namespace literals;

constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();

TEST(Quantity, LiteralsSpellTheUnit) {
  EXPECT_EQ((80_GiB).value(), 85'899'345'920);  // 80 * 2^30
  EXPECT_EQ((80_GB).value(), 80'000'000'000);
  EXPECT_EQ((1_TiB).value() / (1_GiB).value(), 1024);
  EXPECT_DOUBLE_EQ((12.5_ms).value(), 0.0125);
  EXPECT_DOUBLE_EQ((989_TFLOP_per_s).value(), 989e12);
}

TEST(Quantity, DimensionsFollowArithmetic) {
  // 64 GB over a 32 GB/s link takes two seconds.
  EXPECT_DOUBLE_EQ((64_GB / 32_GB_per_s).value(), 2.0);
  EXPECT_EQ(32_GB_per_s * 2_s, 64_GB);
  EXPECT_DOUBLE_EQ((Flops(2e15) / 1000_TFLOP_per_s).value(), 2.0);
  EXPECT_DOUBLE_EQ((Samples(10) / 2_s).value(), 5.0);
  EXPECT_DOUBLE_EQ((40_GiB / 80_GiB).value(), 0.5);
  EXPECT_EQ(80_GiB * Ratio(0.25), 20_GiB);
  EXPECT_EQ(3 * 2_GiB, 6_GiB);
  EXPECT_LT(1_GB, 1_GiB);
}

TEST(Quantity, WholeNumbersDoNotWrap) {
  EXPECT_THROW(Bytes(kLargest) + 1_B, QuantityOverflow);
  EXPECT_THROW(Bytes(kLeast) - 1_B, QuantityOverflow);
  EXPECT_THROW(-Bytes(kLeast), QuantityOverflow);
  EXPECT_THROW(Bytes(kLargest) * 2, QuantityOverflow);
  EXPECT_THROW(Bytes(kLargest) * Ratio(1.5), QuantityOverflow);
  EXPECT_THROW(32_GB_per_s * Seconds(std::numeric_limits<double>::quiet_NaN()), QuantityOverflow);
  EXPECT_THROW(ceil_divide(kLargest, 2), QuantityOverflow);
  EXPECT_EQ(Bytes(kLargest) + Bytes(kLeast), Bytes(-1));
}

TEST(Quantity, RoundingUp) {
  EXPECT_EQ(ceil_divide(7, 2), 4);
  EXPECT_EQ(ceil_divide(8, 2), 4);
  EXPECT_EQ(ceil_divide(0, 5), 0);
  EXPECT_EQ(round_up(Bytes(513), 512_B), Bytes(1024));
}

TEST(Error, SaysWhereWhatAndWhatInstead) {
  const Error error{.code = ErrorCode::bad_input,
                    .subject = "train.micro_batch",
                    .found = "-3",
                    .accepted = "a whole number from 1 to 1,000,000",
                    .hint = "remove the sign",
                    .file = "job.toml",
                    .line = 12};
  EXPECT_EQ(to_text(error),
            "job.toml:12: train.micro_batch: found -3; accepted: a whole number from 1 to "
            "1,000,000\n  hint: remove the sign");
  EXPECT_EQ(to_text(Error{.code = ErrorCode::internal, .subject = "lost"}), "lost");
}

Result<int> half(int n) {
  if (n % 2 != 0) return fail({.code = ErrorCode::bad_input, .subject = "odd"});
  return n / 2;
}

Result<int> quarter(int n) {
  STEELYARD_TRY(first, half(n));
  STEELYARD_CHECK(half(first));
  return half(first);
}

TEST(Result, TryReturnsTheFirstError) {
  EXPECT_EQ(quarter(8), 2);
  EXPECT_EQ(quarter(6).error().subject, "odd");
  EXPECT_EQ(quarter(5).error().subject, "odd");
}

}  // namespace
}  // namespace steelyard
