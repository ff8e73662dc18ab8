#include "exchange/pipeline_layout.h"

#include <gtest/gtest.h>

#include "megatron_table.h"

namespace steelyard::exchange {
namespace {

using Layers = std::vector<std::int64_t>;

Result<PipelineLayout> layout_of(const std::string& text, std::int64_t layers) {
  const auto arguments = arguments_of(facts::Value(text));
  if (!arguments) return fail(arguments.error());
  return pipeline_layout(*arguments, layers);
}

TEST(PipelineLayout, DividesEvenly) {
  const auto layout = layout_of("--pipeline-model-parallel-size 4 --bf16", 12);
  ASSERT_TRUE(layout);
  EXPECT_EQ(layout->layers, (Layers{3, 3, 3, 3}));
  EXPECT_EQ(layout->chunks, 1);
}

// 12 layers, 4 stages: 3 each, 1 per chunk: 3 chunks.
TEST(PipelineLayout, CountsChunksByTheirLayers) {
  const auto layout =
      layout_of("--pipeline-model-parallel-size 4 --num-layers-per-virtual-pipeline-stage 1", 12);
  ASSERT_TRUE(layout);
  EXPECT_EQ(layout->chunks, 3);
  EXPECT_EQ(layout->layers.size(), 12U);
}

// 6 layers, the embedding and the loss count as one each: 8 over 4 stages of 2 chunks, one each;
// the first chunk of the first stage and the last of the last hold none.
TEST(PipelineLayout, CountsEmbeddingAndLoss) {
  const auto layout = layout_of(
      "--pipeline-model-parallel-size 4 --num-virtual-stages-per-pipeline-rank 2 "
      "--account-for-embedding-in-pipeline-split --account-for-loss-in-pipeline-split",
      6);
  ASSERT_TRUE(layout);
  EXPECT_EQ(layout->layers, (Layers{0, 1, 1, 1, 1, 1, 1, 0}));
  EXPECT_EQ(layout->stage_layers(), (Layers{1, 2, 2, 1}));
}

TEST(PipelineLayout, TakesFirstAndLastStage) {
  const auto layout = layout_of(
      "--pipeline-model-parallel-size 4 --decoder-first-pipeline-num-layers 2 "
      "--decoder-last-pipeline-num-layers 2",
      12);
  ASSERT_TRUE(layout);
  EXPECT_EQ(layout->layers, (Layers{2, 4, 4, 2}));
}

// "Et*3|(tt|)*6mL" is Ettt, six times tt, and mL: 3 + 6 x 2 = 15 layers in 8 parts.
TEST(PipelineLayout, ReadsLayouts) {
  const auto layout = layout_of(
      "--pipeline-model-parallel-size 2 --pipeline-model-parallel-layout 'Et*3|(tt|)*6mL'", 15);
  ASSERT_TRUE(layout);
  EXPECT_EQ(layout->chunks, 4);
  EXPECT_EQ(layout->layers, (Layers{3, 2, 2, 2, 2, 2, 2, 0}));
}

TEST(PipelineLayout, RefusesWhatDoesNotDivide) {
  EXPECT_FALSE(layout_of("--pipeline-model-parallel-size 4 --bf16", 13));
  EXPECT_FALSE(
      layout_of("--pipeline-model-parallel-size 3 --pipeline-model-parallel-layout 'Et|tL'", 2));
  EXPECT_FALSE(
      layout_of("--pipeline-model-parallel-size 2 --pipeline-model-parallel-layout '((('", 2));
}

}  // namespace
}  // namespace steelyard::exchange
