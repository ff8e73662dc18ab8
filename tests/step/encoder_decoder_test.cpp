// What one block makes for all others and wants a gradient for (an encoder's result, T5's position
// biases): kept alive through forward, its gradient the sum of all readers', there until the
// maker's own backward pass takes it over. Every step has to end as it began.
#include <gtest/gtest.h>

#include <string>

#include "step/player.h"
#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

using facts::Job;
using facts::Object;

facts::ModelSource small_t5(bool tied = true) {
  return {"small t5",
          Object{{"model_type", "t5"},
                 {"vocab_size", 256},
                 {"d_model", 64},
                 {"d_kv", 16},
                 {"d_ff", 96},
                 {"num_layers", 3},
                 {"num_decoder_layers", 4},
                 {"num_heads", 4},
                 {"tie_word_embeddings", tied}},
          ""};
}

facts::ModelSource small_bart(const std::string& type) {
  return {"small " + type,
          Object{{"model_type", type},
                 {"vocab_size", 256},
                 {"d_model", 64},
                 {"encoder_layers", 2},
                 {"decoder_layers", 3},
                 {"encoder_attention_heads", 4},
                 {"decoder_attention_heads", 4},
                 {"encoder_ffn_dim", 96},
                 {"decoder_ffn_dim", 96},
                 {"max_position_embeddings", kTokens}},
          ""};
}

facts::ModelSource small_transfo_xl() {
  return {"small transfo-xl",
          Object{{"model_type", "transfo-xl"},
                 {"vocab_size", 256},
                 {"d_model", 64},
                 {"d_embed", 64},
                 {"n_layer", 3},
                 {"n_head", 4},
                 {"d_head", 16},
                 {"d_inner", 96},
                 {"mem_len", 32},
                 {"adaptive", false},
                 {"div_val", 1}},
          ""};
}

facts::ModelSource small_granitemoe() {
  return {"small granitemoe",
          Object{{"model_type", "granitemoe"},
                 {"vocab_size", 256},
                 {"hidden_size", 64},
                 {"num_hidden_layers", 3},
                 {"num_attention_heads", 4},
                 {"num_key_value_heads", 2},
                 {"intermediate_size", 48},
                 {"num_local_experts", 4},
                 {"num_experts_per_tok", 2}},
          ""};
}

// Three products of an expert, or two of Granite's, become as many of all experts.
TEST(Granite, FusedExpertsAreMultipliedAtOnce) {
  Job job = small_job();
  job.train.fused_kernels = {facts::FusedKernel::moe};
  const auto products = [](const Program& program) {
    return std::ranges::count_if(program.work,
                                 [](const Work& work) { return work.kind == WorkKind::gemm; });
  };
  const auto graph = model::build(small_granitemoe(), {.batch = kSamples, .sequence = kTokens});
  ASSERT_TRUE(graph);
  const auto profile = profile_of("transformers");
  const Program fused = program_for(*graph, job, profile);
  const Program loop = program_for(*graph, small_job(), profile);
  expect_balanced(fused, "fused experts");
  EXPECT_LT(products(fused), products(loop));
}

struct Case {
  std::string name;
  facts::ModelSource model;
};

class SharedGradients : public ::testing::TestWithParam<Case> {};

void expect_steps_alike(const facts::ModelSource& source, const Job& job, const char* what) {
  const auto graph = model::build(source, {.batch = kSamples, .sequence = kTokens});
  ASSERT_TRUE(graph) << to_text(graph.error());
  const Program program = program_for(*graph, job, profile_of("transformers"));
  expect_balanced(program, source.name + ", " + what);
}

TEST_P(SharedGradients, EveryStepEndsAsItBegan) {
  const facts::ModelSource& source = GetParam().model;
  expect_steps_alike(source, small_job(), "alone");
  Job mixed = small_job();
  mixed.train.precision = facts::Precision::bf16_mixed;
  mixed.train.attention = facts::Attention::math;
  mixed.train.gradient_accumulation = 2;
  expect_steps_alike(source, mixed, "mixed, accumulated");
  Job again = small_job();
  again.train.recompute.mode = facts::RecomputeMode::full;
  expect_steps_alike(source, again, "recomputed");
  Job sharded = small_job(4);
  sharded.parallel.sharding = facts::Sharding::fsdp;
  expect_steps_alike(source, sharded, "sharded");
  Job zero = small_job(4);
  zero.parallel.sharding = facts::Sharding::zero2;
  expect_steps_alike(source, zero, "ZeRO-2");
}

INSTANTIATE_TEST_SUITE_P(
    Models, SharedGradients,
    ::testing::Values(Case{"t5", small_t5()}, Case{"t5_untied", small_t5(false)},
                      Case{"bart", small_bart("bart")}, Case{"mbart", small_bart("mbart")},
                      Case{"marian", small_bart("marian")}, Case{"transfo_xl", small_transfo_xl()},
                      Case{"granitemoe", small_granitemoe()}),
    [](const auto& row) { return row.param.name; });

// All layers of the decoder send a gradient; one tensor holds their sum.
TEST(EncoderDecoder, OneSumOfGradientsWaitsForTheEncoder) {
  const auto graph = model::build(small_t5(), {.batch = kSamples, .sequence = kTokens});
  ASSERT_TRUE(graph);
  const Program program = program_for(*graph, small_job(), profile_of("transformers"));
  std::int64_t sums = 0;
  for (const Slot& slot : program.slots) {
    const std::string& name = program.names[static_cast<std::size_t>(slot.name)];
    if (name.find("gradient of all blocks") == std::string::npos) continue;
    EXPECT_TRUE(slot.shared);
    ++sums;
  }
  EXPECT_EQ(sums, 3);  // the encoder's states and both position biases
}

}  // namespace
}  // namespace steelyard::step
