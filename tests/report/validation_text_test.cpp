#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "base/text.h"
#include "report/report.h"
#include "support/golden.h"

namespace steelyard {
namespace {

using facts::QuantityGroup;
using ::testing::HasSubstr;
using ::testing::Not;

facts::Comparison compared(const char* id, const char* quantity, QuantityGroup group,
                           double measured, double predicted) {
  return {id,    "torchtitan", "high",    quantity,
          group, measured,     predicted, Ratio(predicted / measured - 1.0)};
}

facts::Validation validation() {
  facts::Validation all;
  all.cases = {compared("titan-a", "vram_peak_reserved", QuantityGroup::vram, 50.0 * (1 << 30),
                        52.0 * (1 << 30)),
               compared("titan-b", "vram_peak_reserved", QuantityGroup::vram, 64.0 * (1 << 30),
                        48.0 * (1 << 30)),
               compared("titan-b", "tokens_per_second_per_gpu", QuantityGroup::pace, 6000, 7500),
               compared("titan-c", "step_seconds", QuantityGroup::pace, 2.0, 2.1),
               compared("titan-d", "mfu", QuantityGroup::pace, 0.4, 0.39)};
  for (int i = 0; i < 3; ++i) {
    all.unsupported.push_back({"lora-" + std::to_string(i), "peft",
                               "train.method: found lora; accepted: full | and no more"});
  }
  all.unsupported.push_back({"bert-base", "hf", "model_type: found \"bert\""});
  all.summary = {
      {"torchtitan", QuantityGroup::vram, "high", 2, Ratio(0.145), Ratio(0.25), Ratio(-0.105)},
      {"torchtitan", QuantityGroup::pace, "high", 3, Ratio(0.05), Ratio(0.25), Ratio(0.05)}};
  all.overall = {{"", QuantityGroup::vram, "", 2, Ratio(0.145), Ratio(0.25), Ratio(-0.105)},
                 {"", QuantityGroup::pace, "", 3, Ratio(0.05), Ratio(0.25), Ratio(0.05)}};
  all.fits = {9, 4, 1, 2};
  return all;
}

TEST(ValidationText, Golden) {
  testing::expect_golden(report::validation_text(validation(), {}), "report/golden/validation");
}

TEST(ValidationText, Markdown) {
  testing::expect_golden(report::validation_markdown(validation()),
                         "report/golden/validation_markdown");
}

TEST(ValidationText, NothingIsSkippedInSilence) {
  facts::Validation all = validation();
  for (int i = 0; i < 40; ++i) {
    all.unsupported.push_back({"x" + std::to_string(i), "s", "reason " + std::to_string(i)});
  }
  const std::string text = report::validation_text(all, {});
  // 42 reasons, of which 12 have a row of their own; the 30 others are of one case each.
  EXPECT_THAT(text, HasSubstr("   30  30 further reasons: see --json or --markdown"));
  EXPECT_THAT(text, HasSubstr("44 cases could not be planned"));
  EXPECT_THAT(report::validation_markdown(all), HasSubstr("reason 39"));
}

TEST(ValidationText, KeepsToItsColumns) {
  facts::Validation all = validation();
  all.cases.front().id = std::string(200, 'i');
  all.unsupported.front().reason = std::string(500, 'r');
  all.unsupported.front().id = std::string(200, 'i');
  std::istringstream lines(report::validation_text(all, {}));
  for (std::string line; std::getline(lines, line);) EXPECT_LE(display_width(line), 100U) << line;
}

TEST(ValidationText, WithoutCases) {
  const std::string text = report::validation_text({}, {});
  EXPECT_THAT(text, HasSubstr("0 figures of 0 cases compared"));
  EXPECT_THAT(text, Not(HasSubstr("Worst")));
}

}  // namespace
}  // namespace steelyard
