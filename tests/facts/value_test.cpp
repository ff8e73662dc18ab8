#include "facts/value.h"

#include <gtest/gtest.h>

#include <random>

namespace steelyard::facts {
namespace {

TEST(Value, HoldsEachKindAndNoOther) {
  EXPECT_TRUE(Value().is_null());
  EXPECT_EQ(*Value(true).as_bool(), true);
  EXPECT_EQ(*Value(7).as_whole(), 7);
  EXPECT_EQ(*Value(1.5).as_real(), 1.5);
  EXPECT_EQ(*Value("text").as_text(), "text");
  EXPECT_EQ(Value(Array{1, 2}).as_array()->size(), 2U);
  EXPECT_EQ(Value(Object{{"a", 1}}).as_object()->size(), 1U);

  EXPECT_EQ(Value(7).as_real(), nullptr) << "a whole number is not silently a real one";
  EXPECT_EQ(Value(7).as_bool(), nullptr);
  EXPECT_EQ(Value("7").as_whole(), nullptr);
  EXPECT_EQ(Value(true).as_whole(), nullptr);
  EXPECT_EQ(Value(Array{}).as_object(), nullptr);
}

TEST(Value, TextIsNeverTakenForABoolean) {
  EXPECT_EQ(Value("false").as_bool(), nullptr);
  EXPECT_NE(Value("false").as_text(), nullptr);
}

TEST(Value, FindsMembersOfObjectsOnly) {
  const Value object(Object{{"a", 1}, {"b", Object{{"c", "deep"}}}});
  ASSERT_NE(object.find("b"), nullptr);
  EXPECT_EQ(*object.find("b")->find("c"), Value("deep"));
  EXPECT_EQ(object.find("c"), nullptr);
  EXPECT_EQ(Value(3).find("a"), nullptr);
  EXPECT_EQ(Value().find("a"), nullptr);
}

TEST(Value, SetReplacesInPlaceAndAppendsAtTheEnd) {
  Value value;
  value.set("first", 1);
  value.set("second", 2);
  value.set("first", 3);
  const Object expected{{"first", 3}, {"second", 2}};
  EXPECT_EQ(value, Value(expected));
}

TEST(Value, EqualityTellsKindsAndOrderApart) {
  EXPECT_NE(Value(1), Value(1.0));
  EXPECT_NE(Value(0), Value(false));
  EXPECT_NE(Value(), Value(0));
  const Object ab{{"a", 1}, {"b", 2}};
  const Object ba{{"b", 2}, {"a", 1}};
  EXPECT_NE(Value(ab), Value(ba));
}

TEST(Value, NamesItsKindForMessages) {
  EXPECT_STREQ(Value().kind_name(), "null");
  EXPECT_STREQ(Value(true).kind_name(), "true or false");
  EXPECT_STREQ(Value(1).kind_name(), "a whole number");
  EXPECT_STREQ(Value(1.0).kind_name(), "a number");
  EXPECT_STREQ(Value("x").kind_name(), "text");
  EXPECT_STREQ(Value(Array{}).kind_name(), "a list");
  EXPECT_STREQ(Value(Object{}).kind_name(), "a table");
}

// Setting random keys in random order gives what a plain list of pairs gives.
TEST(Value, SetAgreesWithAListOfPairs) {
  std::mt19937 random(20240611);
  Value value;
  Object expected;
  for (int i = 0; i < 2000; ++i) {
    const std::string key = "k" + std::to_string(random() % 50);
    value.set(key, i);
    bool replaced = false;
    for (auto& [name, old] : expected) {
      if (name == key) {
        old = i;
        replaced = true;
      }
    }
    if (!replaced) expected.emplace_back(key, i);
  }
  EXPECT_EQ(value, Value(expected));
}

}  // namespace
}  // namespace steelyard::facts
