// Models beside the trained one that compute on the host's processors, as a plan counts them.
#include <gtest/gtest.h>

#include "model/model.h"
#include "plan/planning.h"

namespace steelyard::plan {
namespace {

using facts::RamCategory;
using facts::RamPhase;

// A denoiser of pictures beside a language model as its text encoder.
Request request_with(const facts::Value& companion, std::optional<double> host_tflops) {
  facts::Job job = job_on_cards("a100-sxm-80gb", 1);
  job.model.config = std::string("stable-diffusion-v1-5");
  job.model.companions = {{.config = "text", .held = facts::CompanionHeld::cpu}};
  job.data.kind = facts::DataKind::jpeg;
  job.train.micro_batch = 2;
  job.machine.host_tflops = host_tflops;
  Request request = request_for(job);
  request.companions = {{"text", companion, ""}};
  return request;
}

facts::Value with_class(const char* name) {
  facts::Value config = config_of(SmallModel());
  config.set("architectures", facts::Array{name});
  return config;
}

Bytes parameters_on_host(const facts::Plan& plan) {
  return plan.ram.phases[static_cast<std::size_t>(RamPhase::steady)][RamCategory::parameters];
}

TEST(Companions, OfAClassWithoutATaskHaveNoHead) {
  const SmallModel sizes;
  const facts::Plan bare = value_of(plan(request_with(with_class("LlamaModel"), 1.0)));
  const facts::Plan whole = value_of(plan(request_with(with_class("LlamaForCausalLM"), 1.0)));
  const auto graph = model::build({"text", with_class("LlamaForCausalLM"), ""}, {.batch = 1});
  ASSERT_TRUE(graph) << to_text(graph.error());
  EXPECT_EQ(parameters_on_host(whole), Bytes(2 * model::parameter_count(*graph).value()));
  EXPECT_EQ(parameters_on_host(whole) - parameters_on_host(bare),
            Bytes(2 * sizes.vocabulary * sizes.hidden));
  ASSERT_TRUE(bare.pace.step && whole.pace.step);
  EXPECT_EQ(bare.pace.step->value(), whole.pace.step->value());  // its head does not run
}

TEST(Companions, OnTheCpuTakeTheTimeOfItsRate) {
  const facts::Plan slow = value_of(plan(request_with(with_class("LlamaModel"), 0.001)));
  const facts::Plan fast = value_of(plan(request_with(with_class("LlamaModel"), 0.002)));
  ASSERT_TRUE(slow.pace.step && fast.pace.step);
  const double ratio = (slow.pace.breakdown.offload / fast.pace.breakdown.offload).value();
  EXPECT_NEAR(ratio, 2.0, 0.05);
  const facts::Plan unknown = value_of(plan(request_with(with_class("LlamaModel"), std::nullopt)));
  EXPECT_FALSE(unknown.pace.step);
  EXPECT_EQ(unknown.pace.missing.size(), 1U);
}

// 4 x 64 x 64 latents in fp32 cross the link in place of 3 x 512 x 512 pixels; 77 tokens with both.
TEST(Companions, OfPicturesOnTheCpuSpareTheLink) {
  const auto copies = [](facts::CompanionHeld held) {
    Request request = request_with(facts::Object{{"_class_name", "AutoencoderKL"}}, 1.0);
    request.job.model.companions.front().held = held;
    const facts::Plan made = value_of(plan(request));
    return made.feed.stages.back().can.value_or(SamplesPerSecond()).value();
  };
  const double pixels = 3 * 512 * 512 * 4 + 77 * 8;
  const double latents = 4 * 64 * 64 * 4 + 77 * 8;
  ASSERT_GT(copies(facts::CompanionHeld::always), 0.0);
  EXPECT_NEAR(copies(facts::CompanionHeld::cpu) / copies(facts::CompanionHeld::always),
              pixels / latents, 1e-6);
}

}  // namespace
}  // namespace steelyard::plan
