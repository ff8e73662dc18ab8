// Files of measured cases, among them all that the project carries.
#include <gtest/gtest.h>

#include "codec/codec.h"
#include "codec/temporary_folder.h"

namespace steelyard::codec {
namespace {

std::filesystem::path carried_cases() {
  return std::filesystem::path(STEELYARD_SOURCE_DIR) / "validation" / "cases";
}

// The number of cases of the published sources (validation/cases); one more file may only add to
// it.
constexpr std::size_t kPublishedCases = 1500;

TEST(Cases, EveryCarriedCaseAndItsJobAreRead) {
  std::size_t cases = 0;
  for (const auto& entry : std::filesystem::directory_iterator(carried_cases())) {
    if (entry.path().extension() != ".json") continue;
    const auto file = read_cases(entry.path());
    ASSERT_TRUE(file) << to_text(file.error());
    EXPECT_EQ(file->source, entry.path().stem().string());
    EXPECT_FALSE(file->title.empty()) << entry.path();
    for (const auto& c : file->cases) {
      const auto job = job_from(c.job, c.id);
      EXPECT_TRUE(job) << entry.path() << ": " << to_text(job.error());
    }
    cases += file->cases.size();
  }
  EXPECT_GE(cases, kPublishedCases);
}

Result<facts::CaseFile> cases(const std::string& text) {
  const TemporaryFolder folder;
  return read_cases(folder.write("some source.json", text));
}

std::string one_case(const std::string& measured, const std::string& more = "") {
  return R"({"schema": "steelyard.cases/1", "source": {"title": "T"}, "cases": [
{"id": "a", "job": {"model": {"config": "gpt2"}}, "measured": {)" +
         measured + "}" + more + "}]}";
}

TEST(Cases, KeepEveryMeasuredKey) {
  const auto file = cases(one_case(R"(
      "vram_peak_allocated": 1, "vram_peak_reserved": 2, "vram_peak_device_used": 3,
      "vram_steady_allocated": 4, "vram_low": 0, "vram_high": 6, "vram_meter": "device_used",
      "vram_rank": "last_stage", "ram_peak": 7, "ram_process_peak": 8, "ram_low": 9,
      "ram_high": 10, "ram_scope": "process", "ram_phase": "checkpoint", "step_seconds": 1.5,
      "tokens_per_second_per_gpu": 2.5, "samples_per_second": 3, "tflops_per_gpu": 4.5,
      "hfu_tflops_per_gpu": 5.5, "mfu": 0.4, "hfu": 0.5,
      "flops_convention": "6n+causal-attention", "fits": true, "fits_ram": false)",
                                   R"(, "confidence": "high", "assumptions": ["x", "y"],
      "quote": "as printed", "source": {"where": "w", "url": "u", "commit": "c"})"));
  ASSERT_TRUE(file) << to_text(file.error());
  EXPECT_EQ(file->source, "some source");
  EXPECT_EQ(file->title, "T");
  ASSERT_EQ(file->cases.size(), 1U);
  const facts::Case& c = file->cases[0];
  EXPECT_EQ(c.id, "a");
  EXPECT_EQ(c.source, "some source");
  EXPECT_EQ(c.confidence, "high");
  EXPECT_EQ(c.assumptions.size(), 2U);
  EXPECT_NE(c.job.find("model"), nullptr);
  const facts::Measured& m = c.measured;
  EXPECT_EQ(m.vram_peak_allocated, Bytes(1));
  EXPECT_EQ(m.vram_peak_reserved, Bytes(2));
  EXPECT_EQ(m.vram_peak_device_used, Bytes(3));
  EXPECT_EQ(m.vram_steady_allocated, Bytes(4));
  EXPECT_EQ(m.vram_low, Bytes(0));
  EXPECT_EQ(m.vram_high, Bytes(6));
  EXPECT_EQ(m.vram_meter, facts::VramMeter::device_used);
  EXPECT_EQ(m.vram_rank, "last_stage");
  EXPECT_EQ(m.ram_peak, Bytes(7));
  EXPECT_EQ(m.ram_process_peak, Bytes(8));
  EXPECT_EQ(m.ram_low, Bytes(9));
  EXPECT_EQ(m.ram_high, Bytes(10));
  EXPECT_EQ(m.ram_scope, facts::RamScope::process);
  EXPECT_EQ(m.ram_phase, facts::CaseRamPhase::checkpoint);
  EXPECT_EQ(m.step_seconds, Seconds(1.5));
  EXPECT_EQ(m.tokens_per_second_per_gpu, TokensPerSecond(2.5));
  EXPECT_EQ(m.samples_per_second, SamplesPerSecond(3.0));
  EXPECT_EQ(m.tflops_per_gpu, 4.5);
  EXPECT_EQ(m.hfu_tflops_per_gpu, 5.5);
  EXPECT_EQ(m.mfu, Ratio(0.4));
  EXPECT_EQ(m.hfu, Ratio(0.5));
  EXPECT_EQ(m.flops_convention, facts::FlopsConvention::six_n_causal_attention);
  EXPECT_EQ(m.fits, true);
  EXPECT_EQ(m.fits_ram, false);
}

TEST(Cases, AJobThatIsWrongFailsOnlyWhenItIsPlanned) {
  const auto file = cases(R"({"schema": "steelyard.cases/1", "source": {}, "cases": [
      {"id": "a", "job": {"nonsense": 1}, "measured": {}}]})");
  ASSERT_TRUE(file) << to_text(file.error());
  EXPECT_FALSE(job_from(file->cases[0].job, "a"));
}

TEST(Cases, RefuseUnknownKeysWrongWordsAndHalfBrackets) {
  struct {
    std::string text;
    const char* part_of_message;
  } const bad[] = {
      {one_case(R"("vram_peak_alocated": 1)"),
       "did you mean cases[0].measured.vram_peak_allocated"},
      {one_case(R"("vram_meter": "rss")"), "allocated, reserved, device_used or unknown"},
      {one_case(R"("vram_rank": "first_stage")"), "last_stage"},
      {one_case(R"("vram_low": 1)"), "both ends"},
      {one_case(R"("ram_low": 2, "ram_high": 1)"), "not above"},
      {one_case(R"("vram_peak_allocated": 1.5)"), "a whole number"},
      {one_case(R"("vram_peak_allocated": -1)"), "a whole number"},
      {one_case(R"("mfu": 41.5)"), "from 0 to 2"},
      {one_case(R"("fits": "yes")"), "true or false"},
      {one_case("", R"(, "confidence": "sure")"), "high, medium or low"},
      {one_case("", R"(, "assumption": [])"), "did you mean cases[0].assumptions"},
      {R"({"schema": "steelyard.cases/1", "source": {}, "cases": [{"id": "a", "measured": {}}]})",
       "cases[0].job"},
      {R"({"schema": "steelyard.cases/1", "source": {}})", "cases: found no such key"},
      {R"({"schema": "steelyard.cases/2", "source": {}, "cases": []})", "steelyard.cases/1"},
      {R"({"source": {}, "cases": []})", "schema: found no such key"},
      {"[]", "accepted: a table"},
  };
  for (const auto& c : bad) {
    const auto file = cases(c.text);
    ASSERT_FALSE(file) << c.text;
    EXPECT_NE(to_text(file.error()).find(c.part_of_message), std::string::npos)
        << to_text(file.error());
    EXPECT_NE(file.error().file.find("some source.json"), std::string::npos);
  }
}

TEST(Cases, RefuseTheSameIdTwice) {
  const auto file = cases(R"({"schema": "steelyard.cases/1", "source": {}, "cases": [
      {"id": "a", "job": {}, "measured": {}}, {"id": "a", "job": {}, "measured": {}}]})");
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().found, "the same id twice");
}

TEST(ValidationJson, IsTheContract) {
  facts::Validation validation;
  validation.cases.push_back({.id = "a",
                              .source = "s",
                              .confidence = "high",
                              .quantity = "vram_peak_reserved",
                              .group = facts::QuantityGroup::vram,
                              .measured = 100.0,
                              .predicted = 102.0,
                              .error = Ratio(0.02)});
  validation.unsupported.push_back({"b", "s", "not yet"});
  validation.summary.push_back(
      {"s", facts::QuantityGroup::vram, "high", 1, Ratio(0.02), Ratio(0.02), Ratio(0.02)});
  validation.overall.push_back({"", facts::QuantityGroup::pace, "", 0, {}, {}, {}});
  validation.fits.true_positive = 3;
  EXPECT_EQ(
      to_json(to_value(validation), -1),
      R"({"schema":"steelyard.validation/1","cases":[{"id":"a","source":"s","confidence":"high",)"
      R"("quantity":"vram_peak_reserved","group":"vram","measured":100.0,"predicted":102.0,)"
      R"("error":0.02,"impossible":""}],)"
      R"("unsupported":[{"id":"b","source":"s","reason":"not yet"}],)"
      R"("summary":[{"source":"s","group":"vram","confidence":"high","cases":1,)"
      R"("median_absolute_error":0.02,"p90_absolute_error":0.02,"bias":0.02}],)"
      R"("overall":[{"group":"pace","cases":0,"median_absolute_error":0.0,)"
      R"("p90_absolute_error":0.0,"bias":0.0}],"fits":{"true_positive":3,"true_negative":0,)"
      R"("false_positive":0,"false_negative":0},"verdicts":[],"outside":[]})");
}

}  // namespace
}  // namespace steelyard::codec
