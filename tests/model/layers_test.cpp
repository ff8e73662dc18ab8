// Networks described as data: expressions, layers, repeated blocks, and what is said of mistakes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/layer_values.h"
#include "model/model_fixtures.h"

namespace steelyard::model {
namespace {

using facts::Array;
using facts::Object;
using facts::Value;
using testing::HasSubstr;

const Scope kScope = {{"in", Value(24)},
                      {"ratio", Value(0.25)},
                      {"widths", Value(Array{16, 32})},
                      {"act", Value("silu")},
                      {"deep", Value(true)}};

TEST(LayerExpressions, FollowTheUsualPrecedence) {
  EXPECT_EQ(evaluate("1 + 2 * 3", kScope), 7.0);
  EXPECT_EQ(evaluate("(1 + 2) * 3", kScope), 9.0);
  EXPECT_EQ(evaluate("-in + 1", kScope), -23.0);
  EXPECT_EQ(evaluate("7 // 2 + 7 % 2", kScope), 4.0);
  EXPECT_EQ(evaluate("in == 24 && ratio < 1 ? 2 : 1", kScope), 2.0);
  EXPECT_EQ(evaluate("deep ? widths[1] : widths[0]", kScope), 32.0);
  EXPECT_EQ(evaluate("max(1, floor(in * ratio)) - min(2, 3)", kScope), 4.0);
}

// make_divisible: 24 * 0.25 = 6 -> 8; 61 -> 64 (59.5 and up); 11 -> 16, as 8 is below 0.9 * 11.
TEST(LayerExpressions, RoundChannelsToMultiples) {
  EXPECT_EQ(evaluate("divisible(in * ratio, 8)", kScope), 8.0);
  EXPECT_EQ(evaluate("divisible(61, 8)", kScope), 64.0);
  EXPECT_EQ(evaluate("divisible(11, 8)", kScope), 16.0);
}

TEST(LayerExpressions, RefuseWhatIsNone) {
  for (const char* text : {"", "1 +", "unknown", "widths", "widths[2]", "widths[-1]", "1 / 0",
                           "max(1)", "(1", "1 2", "act"}) {
    EXPECT_FALSE(evaluate(text, kScope)) << text;
  }
  EXPECT_FALSE(evaluate(std::string(100, '('), kScope));
}

TEST(LayerExpressions, FillNames) {
  EXPECT_EQ(filled("block.{in}.{act}", kScope), "block.24.silu");
  EXPECT_EQ(filled("block.{in + 1}", kScope), "block.25");
  EXPECT_FALSE(filled("{nobody}", kScope));
  EXPECT_FALSE(filled("{in", kScope));
}

Object block(const char* name, Array layers) {
  return {{"block", name}, {"layers", std::move(layers)}};
}

Object network(Array blocks) {
  return {{"model_type", "layers"},
          {"image_size", 32},
          {"num_classes", 10},
          {"network", std::move(blocks)}};
}

const Object kConv = {{"conv", "conv"}, {"out", 8}, {"kernel", 3}, {"stride", 2}};
const Object kPool = {{"global_pool", "pool"}};
const Object kHead = {{"linear", "fc"}, {"out", "=classes"}};
const Object kLoss = {{"loss", "classification"}};

Error error_of(Object config) {
  const auto graph = build(source_of(std::move(config)), {.batch = 2});
  return graph ? Error{} : graph.error();
}

// 3x3 with stride 2 and padding 1 halves 32 pixels; 8 * 3 * 9 weights, and 8 * 10 + 10 of the head.
TEST(Layers, BecomeOperatorsOfTheirShapes) {
  const auto graph =
      build(source_of(network({block("embed", {kConv}), block("head", {kPool, kHead, kLoss})})),
            {.batch = 2});
  ASSERT_TRUE(graph) << to_text(graph.error());
  ASSERT_EQ(graph->segments.size(), 2u);
  const Block& first = graph->segments[0].blocks[0];
  EXPECT_EQ(first.tensors.back().shape, (Shape{2, 8, 16, 16}));
  EXPECT_EQ(parameter_count(*graph).value(), 8 * 3 * 9 + 8 * 10 + 10);
  EXPECT_EQ(forward_flops(*graph).value(), 2.0 * (2 * 8 * 16 * 16 * 27 + 2 * 8 * 10));
}

// The first of three blocks widens, the other two are alike; `index` tells them apart.
TEST(Layers, EqualBlocksRepeat) {
  Object config = network(
      {Object{
           {"block", "stage"}, {"repeat", 3}, {"use", "widen"}, {"out", "=index == 0 ? 16 : in"}},
       block("head", {kPool, kHead, kLoss})});
  config.emplace_back("blocks",
                      Object{{"widen", Array{Object{{"conv", "conv"}, {"out", "=out"}}}}});
  const auto graph = build(source_of(config), {.batch = 2});
  ASSERT_TRUE(graph) << to_text(graph.error());
  ASSERT_EQ(graph->segments.size(), 3u);
  EXPECT_EQ(graph->segments[0].repeat, 1);
  EXPECT_EQ(graph->segments[1].repeat, 2);
  EXPECT_EQ(find_weight(graph->segments[1].blocks[0], "conv.weight")->shape, (Shape{16, 16, 1, 1}));
}

TEST(Layers, ResidualsSumWhereTheConditionHolds) {
  const auto operators = [](int stride) {
    const Array inside = {Object{{"conv", "conv"}, {"out", 3}, {"kernel", 3}, {"stride", stride}}};
    const auto graph =
        build(source_of(network({block("embed", {Object{{"residual", inside}, {"if", 2 - stride}}}),
                                 block("head", {kPool, kHead, kLoss})})),
              {.batch = 2});
    return graph ? operator_names(graph->segments[0].blocks[0]) : to_text(graph.error());
  };
  EXPECT_EQ(operators(1), "conv residual");
  EXPECT_EQ(operators(2), "conv");
}

// 32 x 32 pixels in windows of 7 are padded to 35 x 35: 25 windows of 49 tokens a picture.
TEST(Layers, WindowsArePaddedAndTurned) {
  const Array inside = {Object{{"linear", "qkv"}, {"out", "=3 * in"}},
                        Object{{"attention", "attn"},
                               {"heads", 1},
                               {"bias", "bias"},
                               {"bias_rows", 169},
                               {"masks", "=shifted"}}};
  const auto graph = build(
      source_of(
          network({block("embed", {Object{{"channels_last", "permute"}},
                                   Object{{"windows", 7}, {"shift", true}, {"layers", inside}}}),
                   block("head", {kPool, kHead, kLoss})})),
      {.batch = 2});
  ASSERT_TRUE(graph) << to_text(graph.error());
  const Block& first = graph->segments[0].blocks[0];
  EXPECT_EQ(operator_names(first),
            "permute roll pad window_partition window_partition.contiguous qkv attn.split "
            "attn.q_heads attn.k_heads attn.v_heads bias attn window_reverse "
            "window_reverse.contiguous window_reverse.crop roll_back");
  const Operator* attention = find_operator(first, "attn");
  EXPECT_EQ(first.tensors.at(static_cast<std::size_t>(attention->inputs[0].index)).shape,
            (Shape{2 * 25, 1, 49, 3}));
  EXPECT_EQ(find_weight(first, "bias_table")->shape, (Shape{169, 1}));
}

TEST(Layers, MistakesAreNamed) {
  const auto said = [](Array layers) {
    return to_text(error_of(network({block("embed", std::move(layers))})));
  };
  EXPECT_THAT(said({Object{{"konv", "conv"}}}), HasSubstr("batch_norm"));
  EXPECT_THAT(said({Object{{"conv", "conv"}, {"kernal", 3}}}), HasSubstr("conv.kernal"));
  EXPECT_THAT(said({Object{{"conv", "conv"}, {"out", "=width"}}}), HasSubstr("=width"));
  EXPECT_THAT(said({Object{{"conv", "conv"}, {"kernel", 65}, {"padding", 0}}}),
              HasSubstr("32 x 32"));
  EXPECT_THAT(said({Object{{"conv", "conv"}, {"groups", 2}}}), HasSubstr("a divisor of 3"));
  EXPECT_THAT(said({Object{{"load", "nothing"}}}), HasSubstr("saved"));
  EXPECT_THAT(said({Object{{"linear", "fc"}}}), HasSubstr("channels_last"));
  EXPECT_THAT(said({Object{{"use", "nothing"}}}), HasSubstr("blocks"));
  EXPECT_THAT(said({kConv}), HasSubstr("loss"));
  EXPECT_THAT(said({kConv, kConv}), HasSubstr("two weights \"conv.weight\""));
  EXPECT_THAT(to_text(error_of({{"model_type", "layers"}})), HasSubstr("network"));
}

// A block that uses itself ends in an error, not in the stack.
TEST(Layers, BlocksInsideOfThemselvesAreRefused) {
  Object config = network({Object{{"block", "embed"}, {"use", "again"}}});
  config.emplace_back("blocks", Object{{"again", Array{Object{{"use", "again"}}}}});
  EXPECT_THAT(to_text(error_of(config)), HasSubstr("at most 32"));
}

}  // namespace
}  // namespace steelyard::model
