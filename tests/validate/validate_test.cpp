// compare() with hand-made plans: which figure answers which measurement, and what is listed
// instead.
#include "validate/validate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace steelyard::validate {
namespace {

using facts::Case;
using facts::CaseFile;
using facts::Comparison;
using facts::Plan;
using facts::QuantityGroup;
using facts::RamCategory;
using facts::RamPhase;
using facts::Validation;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using namespace literals;

// A text job of 1000 tokens a sample on one GPU: 2 samples, 2000 tokens a second.
Plan example_plan() {
  Plan plan;
  plan.job.machine.gpus = 1;
  plan.job.train.sequence_length = 1000;
  plan.model.active_parameters = Parameters(1'000'000);
  // Products of 0.9 million of the parameters and half of the scores: 2 x 0.9e6 x 1000 + 0.2e9.
  plan.model.forward_flops_per_sample = Flops(2.0e9);
  plan.model.backward_flops_per_sample = Flops(4.0e9);
  plan.model.attention_forward_flops_per_sample = Flops(0.2e9);
  facts::RankMemory first{.kind = "first stage",
                          .ranks = 1,
                          .peak_allocated = 40_GB,
                          .peak_reserved = 44_GB,
                          .peak_device_used = 46_GB,
                          .steady_allocated = 20_GB,
                          .paged_out = {},
                          .by_category = {},
                          .peak_at = {}};
  facts::RankMemory last = first;
  last.kind = "last stage";
  last.peak_allocated = 30_GB;
  plan.vram.fullest = first;
  plan.vram.ranks = {first, last};
  auto& load = plan.ram.phases[static_cast<std::size_t>(RamPhase::load)];
  load[RamCategory::system] = 2_GB;
  load[RamCategory::framework] = 3_GB;
  load[RamCategory::model_load] = 10_GB;
  auto& steady = plan.ram.phases[static_cast<std::size_t>(RamPhase::steady)];
  steady[RamCategory::framework] = 4_GB;
  steady[RamCategory::loader_workers] = 16_GB;
  plan.ram.peak = 20_GB;
  plan.ram.peak_phase = RamPhase::steady;
  plan.pace.step = 0.5_s;
  plan.pace.samples = SamplesPerSecond(2.0);
  plan.pace.tokens = TokensPerSecond(2000.0);
  plan.pace.tokens_per_gpu = TokensPerSecond(2000.0);
  plan.pace.mfu = Ratio(0.4);
  plan.pace.hfu = Ratio(0.5);
  plan.pace.model_flops_per_gpu = FlopsPerSecond(12.0e9);
  plan.fits_vram = true;
  plan.fits_ram = true;
  return plan;
}

Case example_case(const std::string& id = "one") {
  Case one;
  one.id = id;
  one.source = "made-up";
  one.confidence = "high";
  return one;
}

Validation compare_all(std::vector<Case> cases, const Plan& plan = example_plan(),
                       const Selection& selection = {}) {
  const std::vector<CaseFile> files = {{"made-up.json", "made-up", "Made up", std::move(cases)}};
  return compare(files, selection, [&](const Case&) -> Result<Plan> { return plan; });
}

Comparison only_comparison(const Case& one, const Plan& plan = example_plan()) {
  const Validation validation = compare_all({one}, plan);
  EXPECT_THAT(validation.unsupported, IsEmpty());
  EXPECT_THAT(validation.cases, SizeIs(1));
  return validation.cases.empty() ? Comparison{} : validation.cases.front();
}

std::string only_reason(const Case& one, const Plan& plan = example_plan()) {
  const Validation validation = compare_all({one}, plan);
  EXPECT_THAT(validation.cases, IsEmpty());
  EXPECT_THAT(validation.unsupported, SizeIs(1));
  return validation.unsupported.empty() ? "" : validation.unsupported.front().reason;
}

// --- VRAM
// ------------------------------------------------------------------------------------------

TEST(Validate, EachVramCounterMeetsItsOwn) {
  Case one = example_case();
  one.measured.vram_peak_allocated = 50_GB;
  one.measured.vram_peak_reserved = 40_GB;
  one.measured.vram_peak_device_used = 46_GB;
  one.measured.vram_steady_allocated = 25_GB;
  std::map<std::string, double> errors;
  for (const Comparison& comparison : compare_all({one}).cases) {
    EXPECT_EQ(comparison.group, QuantityGroup::vram);
    errors[comparison.quantity] = comparison.error.value();
  }
  ASSERT_EQ(errors.size(), 4U);
  EXPECT_DOUBLE_EQ(errors.at("vram_peak_allocated"), 40.0 / 50.0 - 1.0);
  EXPECT_DOUBLE_EQ(errors.at("vram_peak_reserved"), 44.0 / 40.0 - 1.0);
  EXPECT_DOUBLE_EQ(errors.at("vram_peak_device_used"), 0.0);
  EXPECT_DOUBLE_EQ(errors.at("vram_steady_allocated"), 20.0 / 25.0 - 1.0);
}

TEST(Validate, AFigureOfTheLastStageIsComparedWithTheLastRank) {
  Case one = example_case();
  one.measured.vram_peak_allocated = 30_GB;
  EXPECT_NEAR(only_comparison(one).error.value(), 1.0 / 3.0, 1e-12);
  one.measured.vram_rank = "last_stage";
  EXPECT_DOUBLE_EQ(only_comparison(one).error.value(), 0.0);
  Plan alike = example_plan();
  alike.vram.ranks.clear();  // all ranks are of one kind
  EXPECT_DOUBLE_EQ(only_comparison(one, alike).predicted, 40e9);
}

TEST(Validate, InsideABracketTheErrorIsZeroAndOutsideItCountsFromTheNearerEdge) {
  struct Example {
    Bytes low, high;
    double error, middle;
  };
  // Reserved is 44 GB.
  for (const Example& example :
       {Example{43_GB, 47_GB, 0.0, 45e9}, Example{44_GB, 44_GB, 0.0, 44e9},
        Example{50_GB, 60_GB, 44.0 / 50.0 - 1.0, 55e9},
        Example{30_GB, 40_GB, 44.0 / 40.0 - 1.0, 35e9}, Example{0_B, 50_GB, 0.0, 25e9}}) {
    Case one = example_case();
    one.measured.vram_low = example.low;
    one.measured.vram_high = example.high;
    const Comparison comparison = only_comparison(one);
    EXPECT_EQ(comparison.quantity, "vram_bracket");
    EXPECT_DOUBLE_EQ(comparison.measured, example.middle);
    EXPECT_DOUBLE_EQ(comparison.predicted, 44e9);
    EXPECT_DOUBLE_EQ(comparison.error.value(), example.error);
  }
}

TEST(Validate, TheMeterSaysWhichCounterABracketIsOf) {
  Case one = example_case();
  one.measured.vram_low = 1_GB;
  one.measured.vram_high = 2_GB;
  const std::map<facts::VramMeter, double> expected = {{facts::VramMeter::allocated, 40e9},
                                                       {facts::VramMeter::reserved, 44e9},
                                                       {facts::VramMeter::device_used, 46e9},
                                                       {facts::VramMeter::unknown, 44e9}};
  for (const auto& [meter, predicted] : expected) {
    one.measured.vram_meter = meter;
    EXPECT_DOUBLE_EQ(only_comparison(one).predicted, predicted);
  }
}

TEST(Validate, ALowerBoundAloneIsABracketWithoutTop) {
  Case one = example_case();
  one.measured.vram_low = 40_GB;
  EXPECT_DOUBLE_EQ(only_comparison(one).error.value(), 0.0);
  one.measured.vram_low = 55_GB;
  EXPECT_DOUBLE_EQ(only_comparison(one).error.value(), 44.0 / 55.0 - 1.0);
}

TEST(Validate, AMeasurementOfZeroIsListed) {
  Case one = example_case();
  one.measured.vram_peak_allocated = 0_B;
  EXPECT_THAT(only_reason(one), HasSubstr("vram_peak_allocated: the measured value is not above"));
}

// --- RAM
// -------------------------------------------------------------------------------------------

TEST(Validate, HostMemoryOfANodeIsThatOfThePhaseMeasured) {
  Case one = example_case();
  one.measured.ram_peak = 20_GB;
  EXPECT_DOUBLE_EQ(only_comparison(one).predicted, 20e9);  // steady: 4 + 16
  one.measured.ram_phase = facts::CaseRamPhase::load;
  EXPECT_DOUBLE_EQ(only_comparison(one).predicted, 15e9);  // load: 2 + 3 + 10
  EXPECT_EQ(only_comparison(one).group, QuantityGroup::ram);
}

TEST(Validate, TheOnlyTrainerOfANodeIsItsFullestProcess) {
  Case one = example_case();
  one.measured.ram_process_peak = 13_GB;
  // Without system and loader workers: load 3 + 10, steady 4.
  EXPECT_DOUBLE_EQ(only_comparison(one).predicted, 13e9);
  one.measured.ram_process_peak.reset();
  one.measured.ram_low = 10_GB;
  one.measured.ram_high = 12_GB;
  one.measured.ram_scope = facts::RamScope::process;
  EXPECT_DOUBLE_EQ(only_comparison(one).error.value(), 13.0 / 12.0 - 1.0);
  one.measured.ram_scope = facts::RamScope::node;
  EXPECT_DOUBLE_EQ(only_comparison(one).error.value(), 20.0 / 12.0 - 1.0);
}

// A share of what ranks hold alike; what rank 0 alone reads is all its own.
TEST(Validate, TheFullestOfSeveralProcesses) {
  Plan plan = example_plan();
  plan.job.machine.gpus = 8;
  Case one = example_case();
  one.measured.ram_process_peak = 13_GB;
  EXPECT_DOUBLE_EQ(only_comparison(one, plan).predicted, 13e9 / 8.0);
  plan.job.checkpoint.load = facts::CheckpointLoad::rank0;
  EXPECT_DOUBLE_EQ(only_comparison(one, plan).predicted, 3e9 / 8.0 + 10e9);
}

TEST(Validate, AJobIsItsNodeWithoutTheSystem) {
  Case one = example_case();
  one.measured.ram_peak = 13_GB;
  one.measured.ram_scope = facts::RamScope::job;
  one.measured.ram_phase = facts::CaseRamPhase::load;
  EXPECT_DOUBLE_EQ(only_comparison(one).predicted, 13e9);
}

// --- Pace
// ------------------------------------------------------------------------------------------

TEST(Validate, OnePaceQuantityPerCaseTheFirstPresent) {
  Case one = example_case();
  one.measured.mfu = Ratio(0.5);
  one.measured.tflops_per_gpu = 0.010;
  one.measured.samples_per_second = SamplesPerSecond(2.5);
  one.measured.tokens_per_second_per_gpu = TokensPerSecond(1600.0);
  one.measured.step_seconds = 0.4_s;
  const auto expect = [&](const char* quantity, double error) {
    const Comparison comparison = only_comparison(one);
    EXPECT_EQ(comparison.quantity, quantity);
    EXPECT_EQ(comparison.group, QuantityGroup::pace);
    EXPECT_NEAR(comparison.error.value(), error, 1e-12);
  };
  expect("step_seconds", 0.5 / 0.4 - 1.0);
  one.measured.step_seconds.reset();
  expect("tokens_per_second_per_gpu", 2000.0 / 1600.0 - 1.0);
  one.measured.tokens_per_second_per_gpu.reset();
  expect("samples_per_second", 2.0 / 2.5 - 1.0);
  one.measured.samples_per_second.reset();
  expect("tflops_per_gpu", 0.012 / 0.010 - 1.0);  // no convention said: the plan's own count
  one.measured.tflops_per_gpu.reset();
  expect("mfu", 0.4 / 0.5 - 1.0);
}

// 0.4 of the peak at 2 samples/s: 5.5 samples/s are 1.1 of it. Of pictures in fp32 a quarter of the
// arithmetic may do.
TEST(Validate, WhatIsAboveThePeakIsImpossibleButForTransformedConvolutions) {
  Case one = example_case();
  one.measured.samples_per_second = SamplesPerSecond(5.5);
  EXPECT_THAT(only_comparison(one).impossible, HasSubstr("1.10 times"));
  Plan pictures = example_plan();
  pictures.job.train.image_size = {224, 224};
  pictures.job.train.precision = facts::Precision::bf16_mixed;
  EXPECT_THAT(only_comparison(one, pictures).impossible, HasSubstr("1.10 times"));
  pictures.job.train.precision = facts::Precision::fp32;
  EXPECT_EQ(only_comparison(one, pictures).impossible, "");
  one.measured.samples_per_second = SamplesPerSecond(20.8);
  EXPECT_THAT(only_comparison(one, pictures).impossible, HasSubstr("1.04 times"));
}

// Per sample the plan counts 6.0e9. N = 1e6 and 1000 tokens: 6n = 6.0e9, 8n = 8.0e9. Attention
// forward and backward with half of the scores: 3 x 0.2e9 = 0.6e9; with all of them 1.2e9.
TEST(Validate, ArithmeticRatesAreCountedByTheConventionOfTheSource) {
  const std::map<facts::FlopsConvention, double> counted = {
      {facts::FlopsConvention::six_n, 6.0e9},
      {facts::FlopsConvention::eight_n, 8.0e9},
      {facts::FlopsConvention::six_n_attention, 7.2e9},
      {facts::FlopsConvention::six_n_causal_attention, 6.6e9},
      {facts::FlopsConvention::megatron, 6.6e9}};
  for (const auto& [convention, flops] : counted) {
    SCOPED_TRACE(name_of(convention));
    Case one = example_case();
    one.measured.flops_convention = convention;
    one.measured.tflops_per_gpu = 1.0;
    EXPECT_NEAR(only_comparison(one).predicted, 0.012 * flops / 6.0e9, 1e-12);
    one.measured.tflops_per_gpu.reset();
    one.measured.mfu = Ratio(0.5);
    EXPECT_NEAR(only_comparison(one).predicted, 0.4 * flops / 6.0e9, 1e-12);
  }
}

TEST(Validate, WhatAConventionCountsAndThePlanDoesNotStateIsListed) {
  Case one = example_case();
  one.measured.tflops_per_gpu = 1.0;
  one.measured.flops_convention = facts::FlopsConvention::unstated;
  EXPECT_THAT(only_reason(one), HasSubstr("tflops_per_gpu: the source does not say"));
  Plan plan = example_plan();
  plan.model.attention_forward_flops_per_sample.reset();
  one.measured.flops_convention = facts::FlopsConvention::six_n_attention;
  EXPECT_THAT(only_reason(one, plan), HasSubstr("attention's part"));
}

TEST(Validate, RatesThatCountRecomputationComeLast) {
  Case one = example_case();
  one.measured.hfu_tflops_per_gpu = 0.016;
  one.measured.flops_convention = facts::FlopsConvention::eight_n;
  EXPECT_NEAR(only_comparison(one).error.value(), 0.0, 1e-12);  // 0.012 x 8 / 6
  one.measured.flops_convention = facts::FlopsConvention::megatron;
  EXPECT_THAT(only_reason(one), HasSubstr("hfu_tflops_per_gpu"));
  one.measured.hfu_tflops_per_gpu.reset();
  one.measured.hfu = Ratio(0.4);
  EXPECT_NEAR(only_comparison(one).error.value(), 0.25, 1e-12);
}

TEST(Validate, AnUnknownPaceIsListedWithWhatIsMissing) {
  Plan plan = example_plan();
  plan.pace = {};
  plan.pace.missing = {"gpu.hbm"};
  Case one = example_case();
  one.measured.step_seconds = 1.0_s;
  EXPECT_EQ(only_reason(one, plan), "step_seconds: the plan does not state it; unknown: gpu.hbm");
}

// --- Verdicts, selection, failures
// -----------------------------------------------------------------

TEST(Validate, VerdictsFormAConfusionMatrixWithFitsAsPositive) {
  std::vector<Case> cases;
  // id = what the plan will say; measured = what happened.
  for (const auto& [id, fits] : {std::pair{"yes", true},
                                 {"yes", false},
                                 {"no", true},
                                 {"no", true},
                                 {"no", false},
                                 {"no", false},
                                 {"no", false}}) {
    cases.push_back(example_case(id));
    cases.back().measured.fits = fits;
  }
  const std::vector<CaseFile> files = {{"made-up.json", "made-up", "Made up", cases}};
  const Validation validation = compare(files, {}, [](const Case& one) -> Result<Plan> {
    Plan plan = example_plan();
    plan.fits_vram = one.id == "yes";
    return plan;
  });
  EXPECT_EQ(validation.fits.true_positive, 1);
  EXPECT_EQ(validation.fits.false_positive, 1);
  EXPECT_EQ(validation.fits.false_negative, 2);
  EXPECT_EQ(validation.fits.true_negative, 3);
  EXPECT_THAT(validation.unsupported, IsEmpty());
}

TEST(Validate, VerdictsOnHostMemoryAloneCountInTheSameMatrix) {
  Plan plan = example_plan();
  plan.fits_ram = false;
  Case one = example_case();
  one.measured.fits_ram = false;
  EXPECT_EQ(compare_all({one}, plan).fits.true_negative, 1);
  one.measured.fits = true;  // the job as a whole ran: the plan says it does not
  EXPECT_EQ(compare_all({one}, plan).fits.false_negative, 1);
}

TEST(Validate, AVerdictWithoutACapacityIsListed) {
  Plan plan = example_plan();
  plan.fits_vram.reset();
  Case one = example_case();
  one.measured.fits = true;
  EXPECT_EQ(only_reason(one, plan), "fits: the card's capacity is unknown");
}

TEST(Validate, ACaseThatCannotBePlannedIsListedOnceWithTheErrorsText) {
  Case one = example_case();
  one.measured.step_seconds = 1.0_s;
  one.measured.fits = true;
  const std::vector<CaseFile> files = {{"made-up.json", "made-up", "Made up", {one}}};
  const Validation validation = compare(files, {}, [](const Case&) -> Result<Plan> {
    return fail({.code = ErrorCode::not_supported,
                 .subject = "parallel.tensor",
                 .found = "8",
                 .accepted = "1",
                 .hint = "",
                 .file = "",
                 .line = {}});
  });
  ASSERT_THAT(validation.unsupported, SizeIs(1));
  EXPECT_EQ(validation.unsupported[0].id, "one");
  EXPECT_EQ(validation.unsupported[0].source, "made-up");
  EXPECT_THAT(validation.unsupported[0].reason, HasSubstr("parallel.tensor"));
  EXPECT_THAT(validation.summary, IsEmpty());
}

TEST(Validate, ACaseThatMeasuresNothingIsListed) {
  EXPECT_THAT(only_reason(example_case()), HasSubstr("nothing"));
}

TEST(Validate, TheSelectionByGroupSourceAndConfidenceIsHonoured) {
  Case both = example_case("both");
  both.measured.vram_peak_allocated = 40_GB;
  both.measured.step_seconds = 0.5_s;
  both.measured.fits = true;
  Case low = both;
  low.id = "low";
  low.confidence = "low";
  Case elsewhere = both;
  elsewhere.id = "elsewhere";
  elsewhere.source = "another";
  Case ram = example_case("ram");
  ram.measured.ram_peak = 20_GB;
  const std::vector<Case> cases = {both, low, elsewhere, ram};
  const auto ids = [&](const Selection& selection) {
    std::vector<std::string> found;
    for (const Comparison& comparison : compare_all(cases, example_plan(), selection).cases) {
      found.push_back(comparison.id + "." + comparison.quantity);
    }
    return found;
  };
  using ::testing::ElementsAre;
  EXPECT_THAT(ids({.only = QuantityGroup::pace, .source = "made-up", .confidence = "high"}),
              ElementsAre("both.step_seconds"));
  EXPECT_THAT(ids({.only = QuantityGroup::ram, .source = "", .confidence = ""}),
              ElementsAre("ram.ram_peak"));
  EXPECT_THAT(ids({.only = {}, .source = "another", .confidence = ""}),
              ElementsAre("elsewhere.vram_peak_allocated", "elsewhere.step_seconds"));
  // Verdicts go with memory, not with pace.
  const Selection pace{.only = QuantityGroup::pace, .source = "", .confidence = ""};
  EXPECT_EQ(compare_all(cases, example_plan(), pace).fits.true_positive, 0);
  const Selection vram{.only = QuantityGroup::vram, .source = "", .confidence = ""};
  EXPECT_EQ(compare_all(cases, example_plan(), vram).fits.true_positive, 3);
}

TEST(Validate, CasesOutsideOfTheSelectionAreNotPlanned) {
  Case one = example_case();
  one.measured.vram_peak_allocated = 40_GB;
  const std::vector<CaseFile> files = {{"made-up.json", "made-up", "Made up", {one}}};
  int planned = 0;
  const Selection selection{.only = QuantityGroup::pace, .source = "", .confidence = ""};
  const Validation validation = compare(files, selection, [&](const Case&) -> Result<Plan> {
    ++planned;
    return example_plan();
  });
  EXPECT_EQ(planned, 0);
  EXPECT_THAT(validation.unsupported, IsEmpty());
}

}  // namespace
}  // namespace steelyard::validate
