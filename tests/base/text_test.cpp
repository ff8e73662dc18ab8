#include "base/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "base/text_table.h"

namespace steelyard {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(DisplayWidth, CountsColumnsAndNotBytes) {
  EXPECT_EQ(display_width(""), 0U);
  EXPECT_EQ(display_width("GiB"), 3U);
  EXPECT_EQ(display_width("▕█░▏"), 4U);
  EXPECT_EQ(display_width("日本"), 4U);       // two columns each
  EXPECT_EQ(display_width("e\xCC\x81"), 1U);  // e and a combining acute
  EXPECT_EQ(display_width("\x1b[1;31mred\x1b[0m"), 3U);
  EXPECT_EQ(display_width("\xFF\xC3"), 2U);  // broken UTF-8: one each
}

TEST(Padded, FillsUpToTheWidth) {
  EXPECT_EQ(padded("█", 3), "█  ");
  EXPECT_EQ(padded("ab", 4, Align::right), "  ab");
  EXPECT_EQ(padded("long", 2), "long");
}

TEST(Shortened, SaysThatSomethingIsCut) {
  EXPECT_EQ(shortened("h100-sxm-80gb", 20), "h100-sxm-80gb");
  EXPECT_EQ(shortened("h100-sxm-80gb", 9), "h100-s...");
  EXPECT_EQ(shortened("日本語の名前", 8), "日本...");  // a half character is not shown
  EXPECT_EQ(shortened("abcd", 2), "..");
}

TEST(Wrapped, BreaksAtBlanks) {
  EXPECT_THAT(wrapped("one two  three", 7), ElementsAre("one two", "three"));
  EXPECT_THAT(wrapped("incomprehensible word", 6), ElementsAre("incomprehensible", "word"));
  EXPECT_THAT(wrapped("  ", 6), IsEmpty());
}

TEST(Wrapped, KeepsANumberWithItsUnit) {
  EXPECT_THAT(wrapped("needs 12 GiB more", 8), ElementsAre("needs", "12 GiB", "more"));
}

TEST(Printable, NothingDrivesTheTerminal) {
  EXPECT_EQ(printable("a\x1b[31m\nb\x07"), "a?[31m?b?");
  EXPECT_EQ(printable("Größe 日本 █"), "Größe 日本 █");
  EXPECT_EQ(printable("\xC0\xAF"), "??");           // overlong form of "/"
  EXPECT_EQ(printable("\xED\xA0\x80"), "???");      // half a surrogate pair
  EXPECT_EQ(printable("\xE2\x80\xAEtxt"), "?txt");  // right-to-left override
}

TEST(Printable, SurvivesAnyBytes) {
  std::mt19937 random(5);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes(random() % 20, ' ');
    for (char& c : bytes) c = static_cast<char>(random() & 0xFFU);
    for (const char c : printable(bytes)) EXPECT_FALSE(c >= 0 && c < ' ');
    EXPECT_EQ(printable(printable(bytes)), printable(bytes));
    EXPECT_LE(display_width(shortened(bytes, 7)), std::max<std::size_t>(7, 0));
  }
}

TEST(TextTable, AlignsColumns) {
  TextTable table({{"name"}, {"size", Align::right}});
  table.add({"a", "1.0 GiB"});
  table.add({"größer", "12.5 GiB"});
  table.add({"none"});
  EXPECT_EQ(table.text(2),
            "  name        size\n"
            "  a        1.0 GiB\n"
            "  größer  12.5 GiB\n"
            "  none\n");
}

TEST(TextTable, ARuleUnderTheTitles) {
  TextTable table({{"id"}, {"what"}});
  table.add({"x", "y"});
  EXPECT_EQ(table.text(0, "-"), "id  what\n--  ----\nx   y\n");
}

TEST(TextTable, WithoutTitlesOnlyRows) {
  TextTable table({{""}, {""}});
  EXPECT_TRUE(table.empty());
  table.add({"a", "b"});
  EXPECT_EQ(table.text(), "a  b\n");
}

TEST(TextTable, Markdown) {
  TextTable table({{"a"}, {"n", Align::right}});
  table.add({"x|y\nz", "1"});
  EXPECT_EQ(table.markdown(), "| a | n |\n|---|--:|\n| x\\|y z | 1 |\n");
}

TEST(TextTable, TooManyCellsAreOurBug) {
  TextTable table({{"a"}});
  EXPECT_THROW(table.add({"1", "2"}), std::logic_error);
}

}  // namespace
}  // namespace steelyard
