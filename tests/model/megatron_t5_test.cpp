// T5 by Megatron-LM's own names. Parameters are counted by hand.
#include <gtest/gtest.h>

#include "model/model.h"

namespace steelyard::model {
namespace {

facts::Value small(const facts::Object& changes = {}) {
  facts::Value config{facts::Object{{"model_type", "megatron_t5"},
                                    {"num-layers", 3},
                                    {"decoder-num-layers", 2},
                                    {"hidden-size", 512},
                                    {"num-attention-heads", 8},
                                    {"vocab-size", 28996},
                                    {"vocab-extra-ids", 100},
                                    {"max-position-embeddings", 256}}};
  for (const auto& [key, value] : changes) config.set(key, value);
  return config;
}

Result<Graph> built(const facts::Object& changes = {}) {
  return build({"test", small(changes), ""}, {.batch = 2, .sequence = 128, .decoder_sequence = 32});
}

// An encoder's layer is GPT's: 3,152,384 (megatron_gpt_test.cpp). The decoder's has besides a norm,
// 2 x 512, and an attention: q 512^2 + 512, kv 512 x 1024 + 1024, proj 512^2 + 512.
constexpr std::int64_t kEncoderLayer = 3'152'384;
constexpr std::int64_t kCross = 1024 + 512 * 512 + 512 + 512 * 1024 + 1024 + 512 * 512 + 512;
// 28996 + 100 tokens, padded to a multiple of 128: 29184.
constexpr std::int64_t kWords = 29184;

TEST(MegatronT5, CountsItsParameters) {
  const auto graph = built();
  ASSERT_TRUE(graph) << to_text(graph.error());
  const std::int64_t expected = 5 * kEncoderLayer + 2 * kCross + kWords * 512 + 256 * 512 +
                                2 * 2 * 512 + kWords;  // final norms; the head's bias
  EXPECT_EQ(parameter_count(*graph).value(), expected);
}

TEST(MegatronT5, AnUntiedHeadHasItsOwnMatrixAndNoBias) {
  const auto tied = built();
  const auto untied = built({{"untie-embeddings-and-output-weights", true}});
  ASSERT_TRUE(tied && untied);
  EXPECT_EQ(parameter_count(*untied).value(),
            parameter_count(*tied).value() + kWords * 512 - kWords);
}

TEST(MegatronT5, OnlyTheDecoderIsCausal) {
  const auto graph = built();
  ASSERT_TRUE(graph);
  int causal = 0;
  int both_ways = 0;
  for (const Segment& segment : graph->segments) {
    for (const Block& block : segment.blocks) {
      for (const Operator& op : block.operators) {
        if (op.kind != OperatorKind::attention) continue;
        (op.attention.causal ? causal : both_ways) += 1;
      }
    }
  }
  EXPECT_EQ(causal, 1);     // the decoder's own
  EXPECT_EQ(both_ways, 2);  // the encoder's, and what looks at it
}

TEST(MegatronT5, OtherPositionsAreRefused) {
  const auto graph = built({{"position-embedding-type", "rope"}});
  ASSERT_FALSE(graph);
  EXPECT_NE(to_text(graph.error()).find("position-embedding-type"), std::string::npos);
}

}  // namespace
}  // namespace steelyard::model
