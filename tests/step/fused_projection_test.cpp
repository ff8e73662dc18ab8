// Queries, keys and values out of one projection: what the graph becomes, and what attention keeps.
#include "step/fused_projection.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "small_jobs.h"
#include "step/player.h"

namespace steelyard::step {
namespace {

facts::FrameworkProfile fused_profile() {
  facts::FrameworkProfile profile = profile_of("pytorch");
  profile.operators["attention_projection"] = "fused";
  return profile;
}

const model::Block& layer_of(const model::Graph& graph) {
  return graph.segments.at(1).blocks.front();
}

// small_llama: 4 heads of 16 for queries, 2 for keys and values: 64 + 32 + 32 rows.
TEST(FusedProjection, TakesThePlaceOfThree) {
  const model::Graph plain = graph_of(small_llama());
  const Result<model::Graph> fused = with_own_projections(plain, fused_profile());
  ASSERT_TRUE(fused);
  const model::Block& layer = layer_of(*fused);
  const auto linear = std::find_if(layer.operators.begin(), layer.operators.end(),
                                   [](const auto& op) { return op.name == "self_attn.qkv_proj"; });
  ASSERT_NE(linear, layer.operators.end());
  const model::Weight& weight = layer.weights.at(static_cast<std::size_t>(linear->weights.at(0)));
  EXPECT_EQ(weight.name, "self_attn.qkv_proj.weight");
  EXPECT_EQ(weight.shape, (model::Shape{128, 64}));
  EXPECT_EQ(std::next(linear)->kind, model::OperatorKind::split);
  EXPECT_EQ(std::next(linear)->outputs.size(), 3U);
  EXPECT_EQ(layer.weights.size() + 2, layer_of(plain).weights.size());
  EXPECT_EQ(model::parameter_count(*fused), model::parameter_count(plain));
}

TEST(FusedProjection, JoinsBiasesToo) {
  const facts::ModelSource qwen{"small qwen2",
                                facts::Object{{"model_type", "qwen2"},
                                              {"hidden_size", 64},
                                              {"num_attention_heads", 4},
                                              {"num_key_value_heads", 2},
                                              {"intermediate_size", 160},
                                              {"num_hidden_layers", kLayers},
                                              {"vocab_size", 500}},
                                ""};
  const model::Graph plain = graph_of(qwen);
  const Result<model::Graph> fused = with_own_projections(plain, fused_profile());
  ASSERT_TRUE(fused);
  EXPECT_EQ(layer_of(*fused).weights.size() + 4, layer_of(plain).weights.size());
  EXPECT_EQ(model::parameter_count(*fused), model::parameter_count(plain));
}

TEST(FusedProjection, LeavesOtherModelsAndProfilesAlone) {
  const model::Graph gpt2 = graph_of(small_gpt2());
  const Result<model::Graph> same = with_own_projections(gpt2, fused_profile());
  ASSERT_TRUE(same);
  EXPECT_EQ(layer_of(*same).operators.size(), layer_of(gpt2).operators.size());
  const model::Graph llama = graph_of(small_llama());
  const auto plain = with_own_projections(llama, profile_of("pytorch"));
  ASSERT_TRUE(plain);
  EXPECT_EQ(layer_of(*plain).operators.size(), layer_of(llama).operators.size());
}

TEST(FusedProjection, AnUnknownWordIsNamed) {
  facts::FrameworkProfile profile = fused_profile();
  profile.operators["attention_projection"] = "twice";
  const auto graph = with_own_projections(graph_of(small_llama()), profile);
  ASSERT_FALSE(graph);
  EXPECT_EQ(graph.error().found, "twice");
}

// FSDP1's no_sync: between micro-batches the whole gradient of each flat parameter lies there once,
// and after the last one only its shard.
TEST(UnreducedGradients, AreWholeUntilTheLastMicroBatch) {
  const model::Graph graph = graph_of(small_llama());
  facts::Job job = small_job(4);
  job.train.precision = facts::Precision::bf16;
  job.train.gradient_accumulation = 3;
  job.parallel.sharding = facts::Sharding::fsdp1;
  job.parallel.shard_group = 4;
  facts::FrameworkProfile profile = profile_of("pytorch");
  const auto bytes_of_kept = [&](const char* word) {
    profile.operators["sharded_accumulation"] = word;
    const Program program = program_for(graph, job, profile);
    Bytes whole;
    for (const Slot& slot : program.slots) {
      const std::string& name = program.names[static_cast<std::size_t>(slot.name)];
      if (name != "unsharded gradients") continue;
      whole += slot.bytes;
    }
    Player player(program);
    player.play(program.setup);
    player.step(true);
    player.step(false);
    EXPECT_EQ(player.complaint(), "");
    return whole;
  };
  EXPECT_EQ(bytes_of_kept("reduced"), Bytes());
  // One slot for the layers (each has its own instance), one each for embedding and head.
  const std::int64_t embedding = 500 * 64;
  const std::int64_t layer = 64 * 128 + 64 * 64 + 3 * 64 * 160 + 2 * 64;
  EXPECT_EQ(bytes_of_kept("whole"), Bytes(2 * (2 * embedding + 64 + layer)));
}

}  // namespace
}  // namespace steelyard::step
