// Targets of adapters as PEFT's regular expressions.
#include "step/target_expressions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;
using Names = std::vector<std::string>;

Names matched(const Names& targets) {
  const auto names = with_expressions_matched(graph_of(small_llama()), targets);
  EXPECT_TRUE(names) << (names ? "" : to_text(names.error()));
  return names.value_or(Names());
}

std::string refusal(const std::string& target) {
  const auto names = with_expressions_matched(graph_of(small_llama()), {target});
  return names ? "accepted" : to_text(names.error());
}

TEST(TargetExpressions, MatchWholeNames) {
  EXPECT_THAT(matched({R"(.*\.self_attn\.(q|v)_proj)"}),
              UnorderedElementsAre("self_attn.q_proj", "self_attn.v_proj"));
  EXPECT_THAT(matched({R"(model\.layers\.\d+\.mlp\.up_proj)"}), ElementsAre("mlp.up_proj"));
  EXPECT_THAT(refusal(R"((q|v)_proj)"), HasSubstr("matches no module"));
}

TEST(TargetExpressions, StandBesideNames) {
  EXPECT_THAT(matched({"o_proj", R"(.*up_proj)", "all-linear", "attn*.q_proj"}),
              ElementsAre("o_proj", "mlp.up_proj", "all-linear", "attn*.q_proj"));
}

TEST(TargetExpressions, OfSomeLayersNameThem) {
  EXPECT_THAT(matched({R"(model\.layers\.(0|2)\.self_attn\.q_proj)"}),
              ElementsAre("model.layers.0.self_attn.q_proj", "model.layers.2.self_attn.q_proj"));
}

// "Only the language model's": the same module stands in the tower's layers too.
TEST(TargetExpressions, OfOneStackNameIt) {
  model::Graph graph = graph_of(small_llama());
  model::Segment tower = graph.segments.at(1);
  tower.blocks.front().name = "vision_tower.layers";
  graph.segments.insert(graph.segments.begin() + 1, tower);
  const auto names = with_expressions_matched(graph, {R"(model\..*\.(k|v)_proj)"});
  ASSERT_TRUE(names) << to_text(names.error());
  EXPECT_THAT(*names, UnorderedElementsAre("model.layers.*.self_attn.k_proj",
                                           "model.layers.*.self_attn.v_proj"));
}

TEST(TargetExpressions, ThatAreNoneAreRefused) {
  EXPECT_THAT(refusal("(q_proj"), HasSubstr("no regular expression"));
  EXPECT_THAT(refusal(std::string(2000, '(')), HasSubstr("at most 512"));
  EXPECT_THAT(refusal(".{1000}{1000}"), HasSubstr("a counted repeat"));
  EXPECT_THAT(refusal(R"((.)\1.*)"), HasSubstr("no regular expression"));
}

// A backtracking matcher would not come back.
TEST(TargetExpressions, OfNestedRepeatsEnd) {
  EXPECT_THAT(refusal("(([a-z._0-9]+)+)+!"), HasSubstr("matches no module"));
}

}  // namespace
}  // namespace steelyard::step
