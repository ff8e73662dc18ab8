#include "validate/outside.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace steelyard::validate {
namespace {

using facts::QuantityGroup;

facts::Comparison figure(std::string id, std::string quantity, double error,
                         std::string confidence = "high",
                         QuantityGroup group = QuantityGroup::vram) {
  facts::Comparison c;
  c.id = std::move(id);
  c.quantity = std::move(quantity);
  c.error = Ratio(error);
  c.confidence = std::move(confidence);
  c.group = group;
  return c;
}

TEST(Outside, PatternsHaveStars) {
  EXPECT_TRUE(matches("a-*-c", "a-b-c"));
  EXPECT_TRUE(matches("a-*-c", "a--c-c"));
  EXPECT_TRUE(matches("*", ""));
  EXPECT_TRUE(matches("abc", "abc"));
  EXPECT_TRUE(matches("*g1*b4", "x-g1-g1-b4"));
  EXPECT_FALSE(matches("abc", "abcd"));
  EXPECT_FALSE(matches("a*b", "a"));
  EXPECT_FALSE(matches("", "a"));
}

TEST(Outside, BoundsDependOnConfidence) {
  facts::Validation all;
  all.cases = {figure("a", "vram_peak_allocated", 0.08), figure("b", "vram_peak_allocated", -0.09),
               figure("c", "vram_peak_allocated", 0.14, "medium"),
               figure("d", "vram_peak_allocated", 0.16, "low"),
               figure("e", "mfu", 0.19, "high", QuantityGroup::pace)};
  const auto found = outside(all, {});
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].cases, (std::vector<std::string>{"b", "d"}));
  EXPECT_EQ(found[0].worst, Ratio(0.16));
  EXPECT_EQ(found[0].reason, "");
}

TEST(Outside, TheFirstNoteThatMatchesCounts) {
  facts::Validation all;
  all.cases = {
      figure("run-1", "vram_peak_allocated", 0.5), figure("run-1", "vram_peak_reserved", 0.4),
      figure("run-2", "vram_peak_reserved", -0.6), figure("other", "vram_peak_reserved", 1.0)};
  const std::vector<facts::CaseNote> notes = {{{"run-*"}, {"vram_peak_reserved"}, "old allocator"},
                                              {{"run-*"}, {}, "other software"}};
  const auto found = outside(all, notes);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].reason, "old allocator");  // two figures
  EXPECT_EQ(found[0].figures, 2);
  EXPECT_EQ(found[0].worst, Ratio(-0.6));
  EXPECT_EQ(found[1].reason, "other software");
  EXPECT_EQ(found[2].reason, "");  // unexplained ones are last
}

// Every figure beyond its bound is in one group.
TEST(Outside, NothingIsLost) {
  facts::Validation all;
  for (int i = 0; i < 100; ++i) {
    all.cases.push_back(
        figure("case-" + std::to_string(i), "vram_peak_allocated", 0.01 * i - 0.495));
  }
  const std::vector<facts::CaseNote> notes = {{{"case-1*"}, {}, "one"}, {{"*7"}, {}, "seven"}};
  std::int64_t figures = 0;
  for (const facts::Outside& group : outside(all, notes)) figures += group.figures;
  EXPECT_EQ(figures, 84);  // all but the 16 from -0.075 to 0.075
}

}  // namespace
}  // namespace steelyard::validate
