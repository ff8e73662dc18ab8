// How far figures are to be trusted: errors of the nearest measured cases.
#include "plan/confidence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plan/planning.h"

namespace steelyard::plan {
namespace {

using facts::Evidence;
using facts::Likeness;
using facts::QuantityGroup;
using ::testing::HasSubstr;

Likeness llama_on_hopper() {
  Likeness likeness;
  likeness.family = "llama";
  likeness.architecture = "hopper";
  likeness.framework = "torchtitan";
  likeness.method = "full";
  likeness.precision = "bf16-mixed";
  likeness.sharding = "fsdp";
  likeness.recompute = "none";
  likeness.gpus = 8;
  likeness.parameters = 8e9;
  return likeness;
}

Evidence seen(const Likeness& of, double error, QuantityGroup group = QuantityGroup::pace) {
  return {"case", group, of, Ratio(error)};
}

TEST(Confidence, IsTheMedianErrorOfTheNearestCases) {
  Likeness larger = llama_on_hopper();
  larger.gpus = 64;
  std::vector<Evidence> evidence = {seen(llama_on_hopper(), 0.02), seen(llama_on_hopper(), -0.06),
                                    seen(larger, 0.04),
                                    seen(llama_on_hopper(), 0.9, QuantityGroup::vram)};
  Likeness other = llama_on_hopper();
  other.framework = "megatron";
  other.architecture = "volta";
  evidence.push_back(seen(other, 2.0));  // two things that count: not near
  const auto found = confidence_of(QuantityGroup::pace, llama_on_hopper(), evidence);
  ASSERT_TRUE(found.median_absolute_error.has_value());
  EXPECT_NEAR(found.median_absolute_error->value(), 0.04, 1e-12);
  EXPECT_EQ(found.cases, 3);
  EXPECT_EQ(found.note, "measured: llama on hopper with torchtitan, 8 to 64 GPUs");
}

TEST(Confidence, WithoutNearCasesFiguresAreExtrapolated) {
  const std::vector<Evidence> two = {seen(llama_on_hopper(), 0.02), seen(llama_on_hopper(), 0.03)};
  for (const auto& evidence : {std::vector<Evidence>{}, two}) {
    const auto found = confidence_of(QuantityGroup::pace, llama_on_hopper(), evidence);
    EXPECT_FALSE(found.median_absolute_error.has_value());
    EXPECT_EQ(found.cases, 0);
    EXPECT_THAT(found.note, HasSubstr("extrapolated"));
  }
}

TEST(Confidence, ThePaceFollowsTheCardAndMemoryTheLayout) {
  Likeness card = llama_on_hopper(), layout = llama_on_hopper();
  card.architecture = "ampere";
  layout.sharding = "none";
  const Likeness job = llama_on_hopper();
  EXPECT_EQ(distance(QuantityGroup::pace, job, job), 0.0);
  EXPECT_GT(distance(QuantityGroup::pace, job, card), distance(QuantityGroup::pace, job, layout));
  EXPECT_LT(distance(QuantityGroup::vram, job, card), distance(QuantityGroup::vram, job, layout));
}

TEST(Confidence, APlanCarriesItWhenMeasurementsAreGiven) {
  facts::Job job = job_on_cards("a100-sxm-80gb", 1);
  job.model.config = std::string("gpt2");
  job.train.sequence_length = 128;
  Request request = request_for(job);
  const facts::Plan without = value_of(plan(request));
  EXPECT_TRUE(without.pace_confidence.note.empty());
  const Likeness own = likeness_of(without);
  EXPECT_EQ(own.family, "gpt2");
  EXPECT_EQ(own.architecture, "ampere");
  EXPECT_EQ(own.gpus, 1);
  request.evidence = std::make_shared<const std::vector<Evidence>>(
      std::vector<Evidence>{seen(own, 0.1), seen(own, 0.2), seen(own, -0.3)});
  const facts::Plan with = value_of(plan(request));
  EXPECT_EQ(with.pace_confidence.cases, 3);
  EXPECT_NEAR(with.pace_confidence.median_absolute_error->value(), 0.2, 1e-12);
  EXPECT_FALSE(with.vram_confidence.median_absolute_error.has_value());
}

}  // namespace
}  // namespace steelyard::plan
