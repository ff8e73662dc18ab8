#include "base/parse_bytes.h"

#include <gtest/gtest.h>

namespace steelyard {
namespace {

using namespace literals;

TEST(ParseBytes, NumbersWithUnits) {
  const std::pair<const char*, Bytes> kCases[] = {
      {"20GiB", 20_GiB}, {"1.5 TiB", 1536_GiB}, {"500MB", 500_MB},
      {"500mb", 500_MB}, {"2kB", 2000_B},       {"2KiB", 2048_B},
      {"4096", 4096_B},  {"4096 B", 4096_B},    {"0.5GB", 500_MB},
      {"0", 0_B},        {"3 mib", 3_MiB},      {"1TB", 1_TB}};
  for (const auto& [text, bytes] : kCases) {
    const Result<Bytes> read = parse_bytes(text, "--size");
    ASSERT_TRUE(read) << text;
    EXPECT_EQ(*read, bytes) << text;
  }
}

TEST(ParseBytes, EverythingElseIsAnError) {
  for (const char* text : {"", "GiB", "-1GiB", "20 gigs", "1e400", "nan", "inf", "9999999999TiB",
                           "20GiB!", "1,5GiB", "0x10"}) {
    const Result<Bytes> read = parse_bytes(text, "--size");
    ASSERT_FALSE(read) << text;
    EXPECT_EQ(read.error().subject, "--size");
  }
}

}  // namespace
}  // namespace steelyard
