// scaled_dot_product_attention written out, where no kernel of its runs (train.attention).
#include <gtest/gtest.h>

#include "plan/planning.h"

namespace steelyard::plan {
namespace {

constexpr std::int64_t kTokens = 512, kHeads = 4, kWidth = 256;

// As many key heads as query heads.
facts::Value config_with(std::int64_t layers) {
  return facts::Object{{"model_type", "llama"},           {"hidden_size", kWidth},
                       {"num_hidden_layers", layers},     {"num_attention_heads", kHeads},
                       {"num_key_value_heads", kHeads},   {"intermediate_size", 3 * kWidth},
                       {"vocab_size", std::int64_t{2000}}};
}

// What one more layer keeps between its passes.
Bytes kept_by_a_layer(facts::Attention attention, const char* torch) {
  const auto activations = [&](std::int64_t layers) {
    facts::Job job = job_on_cards("a100-sxm-80gb", 1);
    job.framework = "pytorch";
    job.versions = facts::Object{{"torch", torch}};
    job.model.config = config_with(layers);
    job.train.precision = facts::Precision::bf16;
    job.train.micro_batch = 1;
    job.train.sequence_length = kTokens;
    job.train.attention = attention;
    return planned(job).vram.fullest.by_category[facts::VramCategory::activations];
  };
  return Bytes((activations(6) - activations(2)).value() / 4);
}

// By hand: q, k and v in fp32 and the fp32 softmax, where flash has q, k and v in bf16 and a
// statistic for each query. Until 2.4 all of it had the type of its inputs.
TEST(SdpaMath, KeepsWhatPyTorchWritesOut) {
  constexpr std::int64_t kRows = kTokens * kWidth, kScores = kHeads * kTokens * kTokens;
  constexpr std::int64_t kStatistics = 4 * kHeads * kTokens;
  for (const bool recent : {true, false}) {
    const char* torch = recent ? "2.6" : "2.4";
    SCOPED_TRACE(torch);
    const Bytes flash = kept_by_a_layer(facts::Attention::flash, torch);
    const Bytes written = kept_by_a_layer(facts::Attention::sdpa_math, torch);
    const std::int64_t more = recent ? 3 * 2 * kRows + 4 * kScores : 2 * kScores;
    // Blocks that are not split count whole.
    const auto found = static_cast<double>((written - flash).value());
    EXPECT_NEAR(found / static_cast<double>(more - kStatistics), 1.0, 0.015);
  }
}

// The model's own code casts the probabilities back besides.
TEST(SdpaMath, IsNotTheModelsOwnCode) {
  EXPECT_NE(kept_by_a_layer(facts::Attention::sdpa_math, "2.6"),
            kept_by_a_layer(facts::Attention::math, "2.6"));
}

}  // namespace
}  // namespace steelyard::plan
