// train.upcast_logits, loss_in_model and keep_logits: what a loop does with its logits, whatever
// the framework would.
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <string_view>

#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

// Bytes alive when backward begins.
std::int64_t left_by_forward(const std::function<void(facts::TrainKeys&)>& set,
                             std::string_view framework, const facts::Value& versions = {}) {
  facts::Job job = small_job();
  job.train.precision = facts::Precision::bf16;
  set(job.train);
  const Program program =
      program_for(graph_of(small_llama()), job, profile_of(framework, versions));
  std::int64_t alive = 0;
  const auto each = [&](const Event& event, std::int64_t) {
    const std::int64_t bytes = program.slots[static_cast<std::size_t>(event.index)].bytes.value();
    if (event.kind == EventKind::allocate) alive += bytes;
    if (event.kind == EventKind::free) alive -= bytes;
  };
  for (const Pass& pass : program.step) {
    for (const Phase& phase : pass.phases) {
      if (phase.kind == PhaseKind::backward) return alive;
      play(program, {Pass{1, {phase}}}, each);
    }
  }
  return alive;
}

TEST(Logits, ThatTheLoopLetsGoAreNotThereInBackward) {
  const auto left = [](std::optional<bool> keep) {
    return left_by_forward([&](facts::TrainKeys& train) { train.keep_logits = keep; }, "pytorch");
  };
  EXPECT_EQ(left({}), left(true));
  EXPECT_EQ(left(true) - left(false), 2 * kSamples * kTokens * 500);
  const auto trainer = [](std::optional<bool> keep) {
    return left_by_forward([&](facts::TrainKeys& train) { train.keep_logits = keep; },
                           "transformers");
  };
  EXPECT_EQ(trainer({}), trainer(false));
}

TEST(Logits, KeysAndValuesAreHeldBesideThemThoughLayersRunAgain) {
  const auto left = [](bool cache, bool keep) {
    return left_by_forward(
        [&](facts::TrainKeys& train) {
          train.recompute.mode = facts::RecomputeMode::full;
          train.use_cache = cache;
          train.keep_logits = keep;
        },
        "pytorch");
  };
  // Two tensors of two heads of 16, bf16.
  EXPECT_EQ(left(true, true) - left(false, true), kLayers * 2 * kSamples * kTokens * 32 * 2);
  EXPECT_EQ(left(true, false), left(false, false));  // they go with the model's outputs
}

TEST(Logits, OfALossOutsideOfTheModelAreThereThoughTheModelIsCompiled) {
  const auto left = [](std::optional<bool> in_model, std::string_view framework) {
    return left_by_forward(
        [&](facts::TrainKeys& train) {
          train.compile = true;
          train.keep_logits = false;
          train.upcast_logits = false;
          train.loss_in_model = in_model;
        },
        framework);
  };
  EXPECT_EQ(left({}, "pytorch"), left(true, "pytorch"));
  EXPECT_NE(left({}, "pytorch"), left(false, "pytorch"));
  EXPECT_EQ(left({}, "jax"), left(false, "jax"));  // the step is compiled as a whole
  EXPECT_EQ(left({}, "litgpt"), left(false, "litgpt"));
}

TEST(Logits, LeftShortSaveTwoBytesOfEachOverTheFrameworksOwn) {
  // log_softmax of [B*S, V] in bf16 instead of fp32; scalars of the loss are a few bytes.
  const std::int64_t logits = kSamples * kTokens * 500;
  for (const auto framework : {"pytorch", "torchtitan"}) {
    SCOPED_TRACE(framework);
    const auto left = [&](std::optional<bool> upcast) {
      return left_by_forward([&](facts::TrainKeys& train) { train.upcast_logits = upcast; },
                             framework);
    };
    const std::int64_t own = left({});
    EXPECT_EQ(left(true), own);
    EXPECT_NEAR(static_cast<double>(own - left(false)), static_cast<double>(2 * logits), 16.0);
  }
}

// torchtitan up to October 2024 widened in the model, so that a loop which holds what the model
// returns holds four bytes of each logit instead of the two of the head's.
TEST(Logits, WidenedByTheModelAreHeldWide) {
  const auto left = [](const char* version, bool keep) {
    return left_by_forward([&](facts::TrainKeys& train) { train.keep_logits = keep; }, "torchtitan",
                           facts::Value(facts::Object{{"torchtitan", version}}));
  };
  const std::int64_t logits = kSamples * kTokens * 500;
  EXPECT_EQ(left("2024.10", false), left("2024.11", false));
  EXPECT_EQ(left("2024.10", true) - left("2024.10", false), 4 * logits);
  EXPECT_EQ(left("2024.11", true) - left("2024.11", false), 2 * logits);
}

}  // namespace
}  // namespace steelyard::step
