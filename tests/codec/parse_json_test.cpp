#include <gtest/gtest.h>

#include <random>

#include "codec/codec.h"
#include "codec/document.h"

namespace steelyard::codec {
namespace {

using facts::Array;
using facts::Object;
using facts::Value;

Result<Value> json(std::string_view text) {
  return parse(text, Format::json, "x.json");
}

TEST(ParseJson, KeepsTheOrderOfKeysAndTheKindOfNumbers) {
  const auto value = json(R"({"b": 1, "a": [1.0, -2, 1e3, true, null, "é\n"], "": {}})");
  ASSERT_TRUE(value) << to_text(value.error());
  const Object expected{{"b", 1}, {"a", Array{1.0, -2, 1e3, true, Value(), "é\n"}}, {"", Object{}}};
  EXPECT_EQ(*value, Value(expected));
}

TEST(ParseJson, TakesTheWholeRangeOf64BitsAndRefusesWhatIsBeyond) {
  EXPECT_EQ(*json("9223372036854775807"), Value(INT64_MAX));
  EXPECT_EQ(*json("-9223372036854775808"), Value(INT64_MIN));
  for (const char* text : {"9223372036854775808", "-9223372036854775809", "18446744073709551616",
                           "100000000000000000000000000000"}) {
    const auto value = json(text);
    ASSERT_FALSE(value) << text;
    EXPECT_EQ(value.error().found, text);
    EXPECT_EQ(value.error().accepted, "a whole number of 64 bits");
  }
  const auto inner = json("{\"train\": {\n\"a\": [1, 9223372036854775808]}}");
  ASSERT_FALSE(inner);
  EXPECT_EQ(inner.error().line, 2);
}

TEST(ParseJson, RefusesANumberThatNoDoubleHolds) {
  const auto value = json("{\"a\":\n 1e999}");
  ASSERT_FALSE(value);
  EXPECT_EQ(value.error().line, 2);
  EXPECT_EQ(value.error().accepted, "a number up to 1.8e308");
}

TEST(ParseJson, RefusesTheSameKeyTwiceAndNamesItsLine) {
  const auto value = json("{\n\"train\": {\"a\": 1,\n\"b\": 2,\n\"a\": 3}}");
  ASSERT_FALSE(value);
  EXPECT_EQ(value.error().found, "the same key twice");
  EXPECT_EQ(value.error().line, 4);
}

TEST(ParseJson, RefusesTheSameKeyTwiceInALargeTable) {
  std::string text = "{";
  for (int i = 0; i < 1000; ++i) text += "\"k" + std::to_string(i) + "\": 0, ";
  EXPECT_TRUE(json(text + "\"last\": 0}"));
  for (const char* again : {"k0", "k15", "k16", "k17", "k999"}) {
    EXPECT_FALSE(json(text + "\"" + again + "\": 0}")) << again;
  }
}

TEST(ParseJson, NamesTheLineOfASyntaxError) {
  struct {
    const char* text;
    int line;
    const char* found;
  } const cases[] = {
      {"{\"a\": 1,\n\"b\": ", 2, "the end of the text"},
      {"{\"a\": 1\n\n\"b\": 2}", 3, "b"},
      {"[1, 2\n", 2, "the end of the text"},
      {"{\"a\": tru}", 1, "tru"},
      {"{'a': 1}", 1, "'"},
      {"{\"a\": 1}\n}", 2, "}"},
      {"{\"a\": NaN}", 1, "N"},
  };
  for (const auto& c : cases) {
    const auto value = json(c.text);
    ASSERT_FALSE(value) << c.text;
    EXPECT_EQ(value.error().code, ErrorCode::bad_input) << c.text;
    EXPECT_EQ(value.error().line, c.line) << to_text(value.error());
    EXPECT_NE(value.error().found.find(c.found), std::string::npos) << to_text(value.error());
    EXPECT_EQ(value.error().file, "x.json");
  }
}

TEST(ParseJson, RefusesBlankTextAndEmptyText) {
  EXPECT_FALSE(json(""));
  EXPECT_FALSE(json(" \n\t "));
}

std::string nested_lists(int depth) {
  return std::string(static_cast<std::size_t>(depth), '[') +
         std::string(static_cast<std::size_t>(depth), ']');
}

TEST(ParseJson, NestsDownToTheLimitAndNoDeeper) {
  EXPECT_TRUE(json(nested_lists(kDeepestNesting)));
  const auto deeper = json(nested_lists(kDeepestNesting + 1));
  ASSERT_FALSE(deeper);
  EXPECT_EQ(deeper.error().code, ErrorCode::too_large);
  EXPECT_FALSE(json(nested_lists(2'000'000))) << "must not exhaust the stack";
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_FALSE(json(objects));
}

TEST(ParseDocument, RecordsTheLineOfEachJsonKey) {
  const auto document =
      parse_document("{\n \"a\": {\"b\": [\n  {\"c\": 1},\n  {\"c\": 2}]}}", Format::json, "x");
  ASSERT_TRUE(document);
  const Lines expected = {{"a", 2}, {"a.b", 2}, {"a.b[0].c", 3}, {"a.b[1].c", 4}};
  EXPECT_EQ(document->lines, expected);
  EXPECT_EQ(line_of_key(document->lines, "a.b[1].c"), 4);
  EXPECT_EQ(line_of_key(document->lines, "a.b[1].zzz"), 2) << "the nearest table around it";
  EXPECT_EQ(line_of_key(document->lines, "zzz"), std::nullopt);
}

// A random tree of values with every kind in it.
Value random_value(std::mt19937& random, int depth) {
  switch (random() % (depth > 0 ? 8U : 6U)) {
    case 0: return {};
    case 1: return random() % 2 == 0;
    case 2: return static_cast<std::int64_t>((std::uint64_t{random()} << 32) | random());
    case 3:
      return std::ldexp(static_cast<double>(random()) - 2e9, static_cast<int>(random() % 100) - 50);
    case 4: return std::string("a\"b\\\n\x01é") + std::to_string(random());
    case 5: return static_cast<std::int64_t>(random() % 10);
    case 6: {
      Array items;
      for (std::uint32_t n = random() % 4; n > 0; --n) {
        items.push_back(random_value(random, depth - 1));
      }
      return items;
    }
    default: {
      Object members;
      for (std::uint32_t n = random() % 4; n > 0; --n) {
        members.emplace_back("key " + std::to_string(n), random_value(random, depth - 1));
      }
      return members;
    }
  }
}

TEST(ToJson, ReadsBackAsItWasWritten) {
  std::mt19937 random(7);
  for (int i = 0; i < 500; ++i) {
    const Value value = random_value(random, 4);
    for (const int indent : {-1, 0, 2}) {
      const std::string text = to_json(value, indent);
      const auto again = json(text);
      ASSERT_TRUE(again) << to_text(again.error()) << "\n" << text;
      EXPECT_EQ(*again, value) << text;
    }
  }
}

TEST(ToJson, WritesListsOfScalarsOnOneLine) {
  const Value value(Object{{"a", Array{1, 2}}, {"b", Array{Object{{"c", 1.0}}}}, {"d", Object{}}});
  EXPECT_EQ(
      to_json(value),
      "{\n  \"a\": [1, 2],\n  \"b\": [\n    {\n      \"c\": 1.0\n    }\n  ],\n  \"d\": {}\n}");
  EXPECT_EQ(to_json(value, -1), R"({"a":[1,2],"b":[{"c":1.0}],"d":{}})");
}

TEST(ToJson, SaysNullForWhatIsNotANumberAndReplacesMalformedText) {
  EXPECT_EQ(to_json(Value(std::nan(""))), "null");
  EXPECT_EQ(to_json(Value(HUGE_VAL)), "null");
  EXPECT_EQ(to_json(Value("a\xff"
                          "b")),
            "\"a\xEF\xBF\xBD"
            "b\"");
}

}  // namespace
}  // namespace steelyard::codec
