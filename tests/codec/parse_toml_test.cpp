#include <gtest/gtest.h>

#include "codec/codec.h"
#include "codec/document.h"
#include "codec/write_text.h"

namespace steelyard::codec {
namespace {

using facts::Array;
using facts::Object;
using facts::Value;

Result<Value> toml(std::string_view text) {
  return parse(text, Format::toml, "x.toml");
}

TEST(ParseToml, KeepsTheOrderOfTheFile) {
  const auto value = toml("z = 1\na = 2.5\n[m]\nb = 'x'\na = [1, 2]\n[b]\nc.d = true\n");
  ASSERT_TRUE(value) << to_text(value.error());
  const Object expected{{"z", 1},
                        {"a", 2.5},
                        {"m", Object{{"b", "x"}, {"a", Array{1, 2}}}},
                        {"b", Object{{"c", Object{{"d", true}}}}}};
  EXPECT_EQ(*value, Value(expected));
}

TEST(ParseToml, RecordsTheLineOfEachKey) {
  const auto document = parse_document(
      "name = 'x'\n\n[model]\nconfig = 'a'\ncompanions = [{config = 'b'},\n  {config = 'c'}]\n",
      Format::toml, "x");
  ASSERT_TRUE(document);
  EXPECT_EQ(line_of_key(document->lines, "name"), 1);
  EXPECT_EQ(line_of_key(document->lines, "model"), 3);
  EXPECT_EQ(line_of_key(document->lines, "model.config"), 4);
  EXPECT_EQ(line_of_key(document->lines, "model.companions[0].config"), 5);
  EXPECT_EQ(line_of_key(document->lines, "model.companions[1].config"), 6);
}

TEST(ParseToml, NamesTheLineOfASyntaxError) {
  struct {
    const char* text;
    int line;
  } const cases[] = {
      {"a = 1\nb = \n", 2},
      {"a = 1\n[b\n", 2},
      {"a = 1\na = 2\n", 2},
      {"x = 1\n\ny = \"abc\n", 3},
      {"a = 1 2\n", 1},
      {"[t]\na=1\n[t]\nb=1\n", 3},
      {"a = 99999999999999999999\n", 1},
  };
  for (const auto& c : cases) {
    const auto value = toml(c.text);
    ASSERT_FALSE(value) << c.text;
    EXPECT_EQ(value.error().code, ErrorCode::bad_input);
    EXPECT_EQ(value.error().line, c.line) << to_text(value.error());
  }
}

TEST(ParseToml, RefusesDatesWhichNoKeyTakes) {
  const auto value = toml("a = 1\nwhen = 2024-05-01\n");
  ASSERT_FALSE(value);
  EXPECT_EQ(value.error().subject, "when");
  EXPECT_EQ(value.error().line, 2);
}

std::string repeated(const std::string& part, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += part;
  return out;
}

TEST(ParseToml, NestsDownToTheLimitAndNoDeeper) {
  // The root is one level, each bracket one more.
  const int inner = kDeepestNesting - 1;
  EXPECT_TRUE(toml("a = " + repeated("[", inner) + repeated("]", inner)));
  const auto deeper = toml("a = " + repeated("[", inner + 1) + repeated("]", inner + 1));
  ASSERT_FALSE(deeper);
  EXPECT_EQ(deeper.error().code, ErrorCode::too_large);
}

TEST(ParseToml, HostileNestingDoesNotExhaustTheStack) {
  const std::string hostile[] = {
      "a = " + repeated("[", 1'000'000),         "a = " + repeated("{a=", 1'000'000),
      "[" + repeated("a.", 1'000'000) + "a]",    repeated("a.", 1'000'000) + "a = 1",
      repeated("\"a\" . ", 1'000'000) + "a = 1", "x = 1\ny = {" + repeated("a.", 70) + "b = 1}",
  };
  for (const auto& text : hostile) {
    const auto value = toml(text);
    ASSERT_FALSE(value) << text.substr(0, 40);
    EXPECT_EQ(value.error().code, ErrorCode::too_large) << to_text(value.error());
  }
}

TEST(ParseToml, BracketsInStringsAndCommentsDoNotCountAsNesting) {
  const std::string brackets = repeated("[{", 100);
  const std::string dots = repeated("a.", 100);
  const auto value = toml("a = \"" + brackets + "\"\n" + "b = '''\n" + brackets + dots + "'''\n" +
                          "# " + brackets + dots + "\n" + "c = \"\"\"\\\"\"\"" + brackets +
                          "\"\"\"\n" + "d = '" + brackets + "'\n# .......................\n");
  ASSERT_TRUE(value) << to_text(value.error());
  EXPECT_EQ(*value->find("a"), Value(brackets));
}

TEST(ToToml, ReadsBackAsItWasWritten) {
  const Value value(
      Object{{"plain", 1},
             {"a key", "text \"quoted\" \\ \t \x01 \x7f é"},
             {"real", 1e-7},
             {"large", 5e8},
             {"list", Array{1, Array{true, "x"}, Object{{"a", 1}, {"b", Object{}}}}}});
  const auto text = to_toml(value);
  ASSERT_TRUE(text);
  const auto again = toml("v = " + *text);
  ASSERT_TRUE(again) << to_text(again.error()) << *text;
  EXPECT_EQ(*again->find("v"), value) << *text;
}

TEST(ToToml, LeavesOutNullMembersAndRefusesNullInLists) {
  EXPECT_EQ(to_toml(Value(Object{{"a", Value()}, {"b", 1}})), "{ b = 1 }");
  EXPECT_EQ(to_toml(Value()), std::nullopt);
  EXPECT_EQ(to_toml(Value(Array{1, Value()})), std::nullopt);
  EXPECT_EQ(to_toml(Value(Object{{"a", Array{Value()}}})), std::nullopt);
}

}  // namespace
}  // namespace steelyard::codec
