#include "codec/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace steelyard::codec {
namespace {

// Encodes without any check: the plain reference.
std::string encoded(std::uint32_t c) {
  const auto byte = [](std::uint32_t bits) { return static_cast<char>(bits); };
  if (c < 0x80) return {byte(c)};
  if (c < 0x800) return {byte(0xC0 | c >> 6), byte(0x80 | (c & 0x3F))};
  if (c < 0x10000)
    return {byte(0xE0 | c >> 12), byte(0x80 | (c >> 6 & 0x3F)), byte(0x80 | (c & 0x3F))};
  return {byte(0xF0 | c >> 18), byte(0x80 | (c >> 12 & 0x3F)), byte(0x80 | (c >> 6 & 0x3F)),
          byte(0x80 | (c & 0x3F))};
}

TEST(Utf8, AcceptsEveryCodePointAndNoSurrogate) {
  for (std::uint32_t c = 0; c < 0x120000; ++c) {
    const bool surrogate = c >= 0xD800 && c <= 0xDFFF;
    const bool valid = c <= 0x10FFFF && !surrogate;
    const std::string text = "ab" + encoded(c) + "c";
    ASSERT_EQ(!first_malformed_utf8(text).has_value(), valid) << std::hex << c;
    if (!valid) {
      ASSERT_EQ(*first_malformed_utf8(text), 2U);
    }
  }
}

TEST(Utf8, RefusesOverlongAndCutSequences) {
  const std::string bad[] = {"\x80",
                             "\xC0\x80",
                             "\xC1\xBF",
                             "\xE0\x9F\xBF",
                             "\xF0\x8F\xBF\xBF",
                             "\xC3",
                             "\xE2\x82",
                             "\xF0\x9F\x98",
                             "\xC3(",
                             "\xE2(\xA1",
                             "\xE2\x82(",
                             "\xFF",
                             "\xF8\x88\x80\x80\x80"};
  for (const auto& text : bad) EXPECT_EQ(first_malformed_utf8(text), 0U);
}

TEST(Utf8, CountsLinesUpToAnOffset) {
  EXPECT_EQ(line_of("a\nb\nc", 0), 1);
  EXPECT_EQ(line_of("a\nb\nc", 1), 1);
  EXPECT_EQ(line_of("a\nb\nc", 2), 2);
  EXPECT_EQ(line_of("a\nb\nc", 4), 3);
}

}  // namespace
}  // namespace steelyard::codec
