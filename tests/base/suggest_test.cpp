#include "base/suggest.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace steelyard {
namespace {

const std::vector<std::string> kCommands = {"plan",   "explain",  "list",      "show",
                                            "schema", "validate", "completion"};

TEST(NearestName, FindsEachKindOfSlip) {
  EXPECT_EQ(nearest_name("pln", kCommands), "plan");           // a letter left out
  EXPECT_EQ(nearest_name("planc", kCommands), "plan");         // one too many
  EXPECT_EQ(nearest_name("validute", kCommands), "validate");  // a wrong one
  EXPECT_EQ(nearest_name("lsit", kCommands), "list");          // two swapped: one slip, not two
}

TEST(NearestName, AnExactNameIsNearest) {
  EXPECT_EQ(nearest_name("show", kCommands), "show");
}

TEST(NearestName, AtMostAThirdOfTheLongerNameMayDiffer) {
  const std::vector<std::string> known = {"abcdef"};
  EXPECT_EQ(nearest_name("abcdxy", known), "abcdef");      // 2 of 6
  EXPECT_EQ(nearest_name("abcxyz", known), std::nullopt);  // 3 of 6
}

TEST(NearestName, StrangersAreNotNear) {
  EXPECT_EQ(nearest_name("xyz", kCommands), std::nullopt);
  EXPECT_EQ(nearest_name("", kCommands), std::nullopt);
  EXPECT_EQ(nearest_name("plan", std::vector<std::string>{}), std::nullopt);
  EXPECT_EQ(nearest_name("plan", std::vector<std::string>{""}), std::nullopt);
}

TEST(NearestName, TheFirstOfEqualsWins) {
  EXPECT_EQ(nearest_name("cat5", std::vector<std::string>{"cat1", "cat2"}), "cat1");
}

TEST(NearestName, AHugeNameIsNoMisspelling) {
  EXPECT_EQ(nearest_name(std::string(1'000'000, 'p'), kCommands), std::nullopt);
}

TEST(Listed, JoinsAsAPersonWould) {
  EXPECT_EQ(listed(std::vector<std::string>{}), "");
  EXPECT_EQ(listed(std::vector<std::string>{"a"}), "a");
  EXPECT_EQ(listed(std::vector<std::string>{"a", "b"}), "a or b");
  EXPECT_EQ(listed(std::vector<std::string>{"a", "b", "c"}), "a, b or c");
}

TEST(Listed, CutsLongLists) {
  const std::vector<std::string> names = {"a", "b", "c", "d"};
  EXPECT_EQ(listed(names, 2), "a, b, ... (4 in all)");
  EXPECT_EQ(listed(names, 4), "a, b, c or d");
}

}  // namespace
}  // namespace steelyard
