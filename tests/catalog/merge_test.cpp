#include "catalog/merge.h"

#include "catalog_fixture.h"
#include "codec/codec.h"

namespace steelyard::catalog {
namespace {

facts::Value json(const char* text) {
  return value_of(codec::parse(text, codec::Format::json, "test"));
}

void expect_merged(const char* base, const char* over, const char* expected) {
  facts::Value value = json(base);
  merge(value, json(over));
  EXPECT_EQ(codec::to_json(value), codec::to_json(json(expected)));
}

TEST(Merge, TablesAreMergedAndEverythingElseReplaced) {
  expect_merged(R"({"a": 1, "b": {"c": 2, "d": 3}})", R"({"a": 5, "b": {"d": 4}})",
                R"({"a": 5, "b": {"c": 2, "d": 4}})");
  expect_merged(R"({"a": [1, 2]})", R"({"a": [3]})", R"({"a": [3]})");
  expect_merged(R"({"a": {"b": 1}})", R"({"a": null})", R"({"a": null})");
  expect_merged(R"({"a": null})", R"({"a": {"b": 1}})", R"({"a": {"b": 1}})");
}

TEST(Merge, DotsLeadIntoTables) {
  expect_merged(R"({"a": {"b": 1, "c": 2}})", R"({"a.b": 9})", R"({"a": {"b": 9, "c": 2}})");
  expect_merged(R"({})", R"({"a.b.c": 1})", R"({"a": {"b": {"c": 1}}})");
}

TEST(Merge, AKeyThatIsThereWithItsDotsIsMeant) {
  expect_merged(R"({"a.b": 1, "a": {"b": 2}})", R"({"a.b": 3})", R"({"a.b": 3, "a": {"b": 2}})");
}

}  // namespace
}  // namespace steelyard::catalog
