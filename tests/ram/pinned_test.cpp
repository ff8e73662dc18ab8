#include "ram/pinned.h"

#include <gtest/gtest.h>

#include <random>

#include "ram/ram.h"

namespace steelyard::ram {
namespace {

using namespace literals;

// Sizes reported by users: pytorch #150517 (129.5 MiB), sglang PR 36562 (20.4 GiB), and a batch of
// 256 x 3 x 224 x 224 in fp32 (147 MiB) and in uint8 (36.75 MiB).
TEST(Pinned, roundsToPowersOfTwoAsReported) {
  EXPECT_EQ(pinned(Bytes(135'790'592)), 256_MiB);    // 129.5 * 2^20
  EXPECT_EQ(pinned(Bytes(21'904'333'210)), 32_GiB);  // 20.4 * 2^30
  EXPECT_EQ(pinned(Bytes(256 * 3 * 224 * 224 * 4)), 256_MiB);
  EXPECT_EQ(pinned(Bytes(256 * 3 * 224 * 224)), 64_MiB);
}

TEST(Pinned, keepsPowersOfTwoAndNothing) {
  EXPECT_EQ(pinned(Bytes()), Bytes());
  EXPECT_EQ(pinned(1_B), 1_B);
  EXPECT_EQ(pinned(64_MiB), 64_MiB);
  EXPECT_EQ(pinned(64_MiB + 1_B), 128_MiB);
}

TEST(Pinned, refusesWhatHasNoPowerOfTwoAbove) {
  EXPECT_EQ(pinned(Bytes(std::int64_t{1} << 62)), Bytes(std::int64_t{1} << 62));
  EXPECT_THROW((void)pinned(Bytes((std::int64_t{1} << 62) + 1)), QuantityOverflow);
}

TEST(Pinned, isBetweenOnceAndTwiceTheRequest) {
  std::mt19937_64 random(20'261);
  std::uniform_int_distribution<std::int64_t> size(1, std::int64_t{1} << 45);
  for (int i = 0; i < 10'000; ++i) {
    const Bytes request(size(random));
    EXPECT_GE(pinned(request), request);
    EXPECT_LT(pinned(request), request * 2);
  }
}

// The expected factor that pieces of unknown sizes get, against many drawn ones.
TEST(Pinned, piecesTakeFourThirdsOnAverage) {
  std::mt19937_64 random(7);
  std::uniform_int_distribution<std::int64_t> size((1 << 24) + 1, 1 << 25);
  Bytes asked, taken;
  for (int i = 0; i < 100'000; ++i) {
    const Bytes request(size(random));
    asked += request;
    taken += pinned(request);
  }
  EXPECT_NEAR((taken / (asked * kRoundingOfUnknown)).value(), 1.0, 0.005);
}

// By hand: 3 MiB and two of 5 MiB become 4 and 8; with two parts 2 MiB and 4 MiB.
TEST(Pinned, weightsOfKnownSizesAreRoundedOneByOne) {
  const std::vector<step::WeightSize> weights = {
      {.times = 1, .elements = 3 << 18, .bytes = 3_MiB, .trains = true},
      {.times = 2, .elements = 5 << 18, .bytes = 5_MiB, .trains = true},
      {.times = 1, .elements = 1 << 20, .bytes = 1_MiB, .trains = false}};
  EXPECT_DOUBLE_EQ(rounding_of(weights, {}).value(), 20.0 / 13.0);
  EXPECT_DOUBLE_EQ(rounding_of(weights, {.parts = 2}).value(), 10.0 / 6.5);
  EXPECT_DOUBLE_EQ(rounding_of(weights, {.bytes_per_element = 2.0}).value(), 10.0 / 6.5);
  EXPECT_DOUBLE_EQ(rounding_of(weights, {.trainable = false, .frozen = true}).value(), 1.0);
  EXPECT_EQ(rounding_of({}, {}), kRoundingOfUnknown);
}

}  // namespace
}  // namespace steelyard::ram
