// A router's balancing loss that stays on its module, and what stays with it (router_loss).
#include <gtest/gtest.h>

#include "plan/planning.h"

namespace steelyard::plan {
namespace {

constexpr std::int64_t kTokens = 256, kWidth = 128;

facts::Job mixture(std::int64_t layers) {
  facts::Job job = job_on_cards("a100-sxm-80gb", 1);
  job.framework = "kempnerforge";
  job.model.config = facts::Object{{"model_type", "mixtral"},
                                   {"hidden_size", kWidth},
                                   {"num_hidden_layers", layers},
                                   {"num_attention_heads", std::int64_t{4}},
                                   {"num_key_value_heads", std::int64_t{4}},
                                   {"intermediate_size", 2 * kWidth},
                                   {"vocab_size", std::int64_t{2000}},
                                   {"num_local_experts", std::int64_t{4}},
                                   {"num_experts_per_tok", std::int64_t{2}}};
  job.train.precision = facts::Precision::bf16;
  job.train.micro_batch = 1;
  job.train.sequence_length = kTokens;
  job.train.recompute.mode = facts::RecomputeMode::full;
  return job;
}

// More that is there between steps than where the loss goes with the results.
Bytes stays(const facts::Job& job) {
  Request request = request_for(job);
  const auto steady = [&](const char* word) {
    request.constants.framework.operators["router_loss"] = word;
    return value_of(plan(request)).vram.fullest.steady_allocated;
  };
  return steady("on_module") - steady("returned");
}

TEST(RouterLoss, HoldsWhatRanAgainBeforeTheRouter) {
  const Bytes of_two = stays(mixture(2));
  // Two norms in fp32, scaled before the cast, and their results: 2 (4 + 4 + 2) T H of a layer;
  // attention's operands and its result: 2 x 4 T H.
  const std::int64_t least = (2 * 10 + 2 * 4) * kTokens * kWidth;
  EXPECT_GE(of_two, Bytes(2 * least));
  EXPECT_LE(of_two, Bytes(2 * 2 * least));
  EXPECT_EQ(stays(mixture(6)), Bytes(3 * of_two.value()));
}

TEST(RouterLoss, HoldsNothingWhereBackwardFreesIt) {
  facts::Job kept = mixture(2);
  kept.train.recompute.mode = facts::RecomputeMode::none;
  EXPECT_EQ(stays(kept), Bytes());
  facts::Job reentrant = mixture(2);
  reentrant.train.use_reentrant = true;
  EXPECT_EQ(stays(reentrant), Bytes());
}

}  // namespace
}  // namespace steelyard::plan
