// The plan as JSON: the table of job-format.md, key for key.
#include <gtest/gtest.h>

#include "codec/codec.h"
#include "codec/plan_example.h"

namespace steelyard::codec {
namespace {

using facts::Value;

const Value* at(const Value& value, std::string_view path) {
  const Value* here = &value;
  while (!path.empty() && here != nullptr) {
    const std::size_t dot = std::min(path.find('.'), path.size());
    here = here->find(path.substr(0, dot));
    path.remove_prefix(std::min(dot + 1, path.size()));
  }
  return here;
}

// The left column of the contract's table, its lists written out.
constexpr const char* kContract[] = {"schema",
                                     "job",
                                     "machine",
                                     "model.parameters",
                                     "model.trainable_parameters",
                                     "model.active_parameters",
                                     "model.flops_per_sample.forward",
                                     "model.flops_per_sample.backward",
                                     "vram.capacity",
                                     "vram.peak_allocated",
                                     "vram.peak_reserved",
                                     "vram.peak_device_used",
                                     "vram.by_category.parameters",
                                     "vram.by_category.gradients",
                                     "vram.by_category.optimizer",
                                     "vram.by_category.activations",
                                     "vram.by_category.temporaries",
                                     "vram.by_category.communication",
                                     "vram.by_category.batch",
                                     "vram.by_category.allocator",
                                     "vram.by_category.runtime",
                                     "vram.peak_at.phase",
                                     "vram.peak_at.layer",
                                     "vram.peak_at.operator",
                                     "vram.ranks",
                                     "ram.capacity",
                                     "ram.peak",
                                     "ram.peak_phase",
                                     "ram.page_cache_wanted",
                                     "pace.step",
                                     "pace.samples",
                                     "pace.tokens",
                                     "pace.tokens_per_gpu",
                                     "pace.mfu",
                                     "pace.hfu",
                                     "pace.breakdown.compute",
                                     "pace.breakdown.memory_bound",
                                     "pace.breakdown.exposed_communication",
                                     "pace.breakdown.bubble",
                                     "pace.breakdown.optimizer",
                                     "pace.breakdown.offload",
                                     "pace.breakdown.data_stall",
                                     "pace.breakdown.checkpoint",
                                     "feed.stages",
                                     "feed.gpu_wait_fraction",
                                     "feed.accelerator_utilization",
                                     "feed.limited_by",
                                     "balance.ratio_needed",
                                     "balance.ratio_installed",
                                     "balance.tier",
                                     "balance.rule_of_thumb",
                                     "balance.verdict",
                                     "balance.advice",
                                     "cost",
                                     "confidence.vram",
                                     "confidence.ram",
                                     "confidence.pace"};

constexpr const char* kRamCategories[] = {
    "system",        "framework",        "model_load",    "parameters",         "gradients",
    "optimizer",     "activations",      "pinned",        "loader_workers",     "prefetch",
    "dataset_cache", "embedding_tables", "shared_memory", "checkpoint_staging", "communication"};

void expect_contract(const Value& plan) {
  for (const char* key : kContract) EXPECT_NE(at(plan, key), nullptr) << key;
  for (const char* phase : {"startup", "load", "steady", "checkpoint"}) {
    for (const char* category : kRamCategories) {
      EXPECT_NE(at(plan, std::string("ram.phases.") + phase + "." + category), nullptr);
    }
  }
  EXPECT_EQ(plan.as_object()->front().first, "schema");
  EXPECT_EQ(*plan.find("schema"), Value("steelyard.plan/1"));
}

TEST(PlanJson, HoldsEveryKeyOfTheContract) {
  expect_contract(to_value(example_plan()));
}

TEST(PlanJson, HoldsEveryKeyEvenWhenNothingIsKnown) {
  const Value plan = to_value(facts::Plan{});
  expect_contract(plan);
  for (const char* unknown :
       {"vram.capacity", "ram.capacity", "pace.step", "pace.samples", "pace.tokens", "pace.mfu",
        "pace.breakdown.compute", "pace.breakdown.checkpoint", "feed.gpu_wait_fraction",
        "balance.ratio_needed", "balance.ratio_installed", "cost", "fits", "vram.fits", "ram.fits",
        "confidence.pace.median_absolute_error", "feed.limited_by"}) {
    ASSERT_NE(at(plan, unknown), nullptr) << unknown;
    EXPECT_TRUE(at(plan, unknown)->is_null()) << unknown << " must be null, not zero";
  }
}

TEST(PlanJson, RoundsNothing) {
  const Value plan = to_value(example_plan());
  EXPECT_EQ(*at(plan, "vram.peak_allocated"), Value(std::int64_t{60'000'000'001}));
  EXPECT_EQ(*at(plan, "vram.by_category.parameters"), Value(std::int64_t{63'000'000'000}));
  EXPECT_EQ(*at(plan, "vram.by_category.gradients"), Value(0));
  EXPECT_EQ(*at(plan, "ram.phases.load.model_load"), Value(std::int64_t{200'000'000'005}));
  EXPECT_EQ(*at(plan, "model.parameters"), Value(std::int64_t{8'030'261'248}));
  EXPECT_EQ(*at(plan, "pace.step"), Value(0.1));
  const auto again = parse(to_json(plan), Format::json, "plan");
  ASSERT_TRUE(again);
  EXPECT_EQ(*again, plan) << "the text says exactly what the tree says";
}

TEST(PlanJson, GivesJobAndMachineTheirOrigins) {
  const Value plan = to_value(example_plan());
  EXPECT_EQ(*at(plan, "job.train.micro_batch.value"), Value(2));
  EXPECT_EQ(*at(plan, "job.train.micro_batch.origin"), Value("import"));
  EXPECT_EQ(*at(plan, "job.train.loss.origin"), Value("default"));
  EXPECT_EQ(*at(plan, "machine.gpu.memory_bytes.value"), Value(std::int64_t{85'028'896'768}));
  EXPECT_EQ(*at(plan, "machine.gpu.memory_bytes.from"), Value("measured"));
  EXPECT_EQ(*at(plan, "machine.gpu.memory_bytes.note"), Value("total, on an idle card"));
  EXPECT_TRUE(at(plan, "machine.gpu.power_watts.value")->is_null());
}

TEST(PlanJson, TheMachineOfAPlanIsAMachineFile) {
  const Value plan = to_value(example_plan());
  const auto machine = machine_from(*plan.find("machine"), "plan");
  ASSERT_TRUE(machine) << to_text(machine.error());
  EXPECT_EQ(to_value(*machine), *plan.find("machine"));
}

TEST(PlanJson, ListsAreInTheirOrder) {
  const Value plan = to_value(example_plan());
  EXPECT_EQ(*at(plan, "balance.verdict"), Value(facts::Array{"vram_short", "ram_idle"}));
  const facts::Array& advice = *at(plan, "balance.advice")->as_array();
  ASSERT_EQ(advice.size(), 1U);
  const facts::Object set{{"train.recompute", "full"}, {"train.micro_batch", "1"}};
  EXPECT_EQ(*advice[0].find("set"), Value(set));
  const facts::Array& stages = *at(plan, "feed.stages")->as_array();
  ASSERT_EQ(stages.size(), 2U);
  EXPECT_EQ(*stages[0].find("name"), Value("storage"));
  EXPECT_TRUE(stages[1].find("can")->is_null());
  EXPECT_EQ(at(plan, "vram.ranks")->as_array()->size(), 2U);
}

TEST(PlanJson, TheTimelineIsThereOnlyWhenAskedFor) {
  facts::Plan plan = example_plan();
  EXPECT_EQ(at(to_value(plan), "vram.timeline"), nullptr);
  plan.vram.timeline.resize(3);
  EXPECT_EQ(at(to_value(plan), "vram.timeline")->as_array()->size(), 3U);
}

TEST(PlanJson, FitsOnlyWhenBothMemoriesAreKnownToSuffice) {
  facts::Plan plan;
  plan.fits_vram = true;
  EXPECT_TRUE(to_value(plan).find("fits")->is_null());
  plan.fits_ram = true;
  EXPECT_EQ(*to_value(plan).find("fits"), Value(true));
  plan.fits_vram.reset();
  plan.fits_ram = false;
  EXPECT_EQ(*to_value(plan).find("fits"), Value(false));
}

}  // namespace
}  // namespace steelyard::codec
