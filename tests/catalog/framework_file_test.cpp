#include "catalog/framework_file.h"

#include <string>

#include "catalog_fixture.h"

namespace steelyard::catalog {
namespace {

TEST(Versions, CompareByNumber) {
  EXPECT_TRUE(std::is_lt(compare_versions("1.9", "1.11")));
  EXPECT_TRUE(std::is_eq(compare_versions("2", "2.0.0")));
  EXPECT_TRUE(std::is_gt(compare_versions("2024.12", "2024.5")));
  EXPECT_TRUE(std::is_lt(compare_versions("4.45.2", "4.46")));
}

TEST(Versions, AreDigitsJoinedByDots) {
  for (const char* good : {"2", "2.6", "0.0.1", "2024.05"}) EXPECT_TRUE(is_version(good)) << good;
  for (const char* bad : {"", ".", "2.", ".2", "2..6", "2.6a0", "v2", "2 6", "-1"}) {
    EXPECT_FALSE(is_version(bad)) << bad;
  }
}

// A base and a profile that extends it, both with variations of one package.
class FrameworkTable : public testing::Test {
 protected:
  FrameworkTable() {
    folder_.write("framework_words.toml", R"(
[softmax]
about = "what a softmax keeps"
words = { saves_result = "its result", saves_input = "its input too" }
[shuffle_buffer]
about = "samples in a buffer"
takes = "number"
)");
    folder_.write("frameworks/base.toml", R"(
kept = "new"
habit = true
[versions]
torch = "2.6"
[[variations]]
package = "torch"
before = "1.11"
source = "for people"
kept = "old"
habit = false
[[variations]]
package = "torch"
from = "1.8"
before = "1.10"
operators.softmax = "saves_input"
)");
    folder_.write("frameworks/tool.toml", R"(
extends = "base"
kept = "own"
[versions]
tool = "0.3"
[[variations]]
package = "tool"
from = "0.4"
kept = "own, later"
)");
  }

  [[nodiscard]] Result<facts::Value> table(const std::string& name,
                                           const facts::Value& versions = {}) const {
    Files files(folder_.path());
    return framework_table(files, name, versions);
  }
  [[nodiscard]] std::string kept(const std::string& name, const facts::Value& versions) const {
    return *value_of(table(name, versions)).find("kept")->as_text();
  }

  TemporaryFolder folder_;
};

TEST_F(FrameworkTable, WithoutVersionsIsWhatTheFilesDescribe) {
  const facts::Value plain = value_of(table("base"));
  EXPECT_EQ(*plain.find("kept")->as_text(), "new");
  EXPECT_EQ(plain.find("variations"), nullptr);
  EXPECT_EQ(plain.find("operators"), nullptr);
  EXPECT_EQ(*plain.find("versions")->find("torch")->as_text(), "2.6");
}

TEST_F(FrameworkTable, AVariationAppliesBelowBeforeAndFromFromOn) {
  const auto torch = [](const char* version) {
    return facts::Value(facts::Object{{"torch", version}});
  };
  EXPECT_EQ(kept("base", torch("1.10.2")), "old");
  EXPECT_EQ(kept("base", torch("1.11")), "new");
  EXPECT_EQ(value_of(table("base", torch("1.7"))).find("operators"), nullptr);
  EXPECT_NE(value_of(table("base", torch("1.9"))).find("operators"), nullptr);
  EXPECT_EQ(value_of(table("base", torch("1.10"))).find("operators"), nullptr);
}

TEST_F(FrameworkTable, WhatAProfileSaysItselfWinsOverTheVariationsOfItsBase) {
  const facts::Value old(facts::Object{{"torch", "1.9"}});
  EXPECT_EQ(kept("tool", old), "own");
  EXPECT_FALSE(*value_of(table("tool", old)).find("habit")->as_bool());
  EXPECT_EQ(kept("tool", facts::Object{{"tool", "0.4"}}), "own, later");
}

TEST_F(FrameworkTable, APackageNobodyKnowsIsNamedWithThoseThatAreKnown) {
  const Error error = error_of(table("tool", facts::Object{{"torhc", "1.9"}}));
  EXPECT_EQ(error.code, ErrorCode::unknown_name);
  EXPECT_EQ(error.subject, "versions");
  EXPECT_NE(error.found.find("torhc"), std::string::npos) << error.found;
  EXPECT_EQ(error.accepted, "torch, tool");
}

TEST_F(FrameworkTable, AVersionMustBeNumbers) {
  const Error word = error_of(table("base", facts::Object{{"torch", "nightly"}}));
  EXPECT_EQ(word.subject, "versions.torch");
  EXPECT_EQ(word.found, "\"nightly\"");
  EXPECT_EQ(error_of(table("base", facts::Object{{"torch", 2.6}})).found, "a number");
}

TEST_F(FrameworkTable, AVariationWithoutBoundsOrOfAnUnknownPackageIsAnError) {
  folder_.write("frameworks/base.toml",
                "[versions]\ntorch = \"2\"\n[[variations]]\npackage = \"torch\"\n");
  EXPECT_EQ(error_of(table("base")).subject, "variations of torch");
  folder_.write("frameworks/base.toml", "[[variations]]\npackage = \"torch\"\nfrom = \"2\"\n");
  EXPECT_EQ(error_of(table("base")).subject, "variations.package");
}

TEST_F(FrameworkTable, AKeyOfOperatorsThatNothingReadsIsNamedWithTheNearest) {
  folder_.write("frameworks/base.toml", "[operators]\nsofmax = \"saves_input\"\n");
  const Error error = error_of(table("base"));
  EXPECT_EQ(error.subject, "operators.sofmax");
  EXPECT_EQ(error.accepted, "operators.softmax");
  EXPECT_TRUE(error.file.ends_with("frameworks/base.toml")) << error.file;
}

TEST_F(FrameworkTable, AWordThatItsKeyDoesNotTakeIsNamedWithThoseThatItTakes) {
  folder_.write("frameworks/base.toml", "[operators]\nsoftmax = \"keeps_input\"\n");
  const Error word = error_of(table("base"));
  EXPECT_EQ(word.found, "keeps_input");
  EXPECT_EQ(word.accepted, "saves_result or saves_input");
  folder_.write("frameworks/base.toml", "[operators]\nshuffle_buffer = \"10k\"\n");
  EXPECT_EQ(error_of(table("base")).subject, "operators.shuffle_buffer");
  folder_.write("frameworks/base.toml", "[operators]\nsoftmax = 4\n");
  EXPECT_EQ(error_of(table("base")).accepted, "text");
}

TEST_F(FrameworkTable, AVariationThatDoesNotApplyIsCheckedToo) {
  folder_.write("frameworks/base.toml", R"(
[versions]
torch = "2.6"
[[variations]]
package = "torch"
before = "1.11"
operators.softmax = "keeps_input"
)");
  EXPECT_EQ(error_of(table("base")).subject, "operators.softmax");
}

}  // namespace
}  // namespace steelyard::catalog
