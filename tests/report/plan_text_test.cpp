#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "base/text.h"
#include "report/report.h"
#include "report/sample_plan.h"
#include "support/golden.h"

namespace steelyard {
namespace {

using report::plan_text;
using testing::expect_golden;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::sample_plan;
using testing::sample_plan_that_does_not_fit;

facts::Plan plan_with_unknowns() {
  facts::Plan plan = sample_plan();
  plan.ram.capacity = {};
  plan.ram.capacity.note = "host memory is not published";
  plan.fits_ram.reset();
  plan.balance.ratio_installed.reset();
  plan.pace.step.reset();
  plan.pace.missing = {"the GPU's bf16 peak rate"};
  plan.feed = {};
  plan.vram_confidence = {};
  return plan;
}

void expect_within(const std::string& text, std::size_t columns) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(display_width(line), columns) << line;
  }
}

std::size_t lines_of(const std::string& text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

TEST(PlanText, Fits) {
  expect_golden(plan_text(sample_plan(), {}), "report/golden/fits");
}

TEST(PlanText, DoesNotFit) {
  expect_golden(plan_text(sample_plan_that_does_not_fit(), {}), "report/golden/does_not_fit");
}

TEST(PlanText, UnknownFigures) {
  expect_golden(plan_text(plan_with_unknowns(), {}), "report/golden/unknown");
}

TEST(PlanText, EightyColumns) {
  expect_golden(plan_text(sample_plan_that_does_not_fit(), {.columns = 80}),
                "report/golden/does_not_fit_80");
}

TEST(PlanText, Ascii) {
  const std::string text = plan_text(sample_plan_that_does_not_fit(), {.ascii = true});
  expect_golden(text, "report/golden/does_not_fit_ascii");
  for (const char c : text) EXPECT_TRUE(c == '\n' || (c >= ' ' && c <= '~'));
}

TEST(PlanText, KeepsToItsColumnsAndToOneScreen) {
  for (const facts::Plan& plan :
       {sample_plan(), sample_plan_that_does_not_fit(), plan_with_unknowns()}) {
    for (const int columns : {72, 80, 100}) {
      expect_within(plan_text(plan, {.columns = columns}), static_cast<std::size_t>(columns));
      expect_within(plan_text(plan, {.columns = columns, .ascii = true}),
                    static_cast<std::size_t>(columns));
    }
    EXPECT_LE(lines_of(plan_text(plan, {})), 45U);
  }
}

TEST(PlanText, ColourOnlyRepeatsWhatTheTextSays) {
  const facts::Plan plan = sample_plan_that_does_not_fit();
  const std::string plain = plan_text(plan, {});
  const std::string coloured = plan_text(plan, {.colour = true});
  EXPECT_THAT(plain, Not(HasSubstr("\x1b")));
  EXPECT_THAT(coloured, HasSubstr("\x1b[1;31mDOES NOT FIT\x1b[0m"));
  std::string stripped;
  for (std::size_t i = 0; i < coloured.size(); ++i) {
    if (coloured[i] == '\x1b') {
      i = coloured.find('m', i);
    } else {
      stripped += coloured[i];
    }
  }
  EXPECT_EQ(stripped, plain);
}

TEST(PlanText, SaysFirstWhetherItFits) {
  EXPECT_THAT(plan_text(sample_plan(), {}), HasSubstr("\nFITS   VRAM 36.0 GiB of 79.6 GiB"));
  EXPECT_THAT(plan_text(sample_plan_that_does_not_fit(), {}),
              HasSubstr("\nDOES NOT FIT   each GPU needs 154.5 GiB, 74.9 GiB more than"));
  EXPECT_THAT(plan_text(plan_with_unknowns(), {}), HasSubstr("\nCANNOT TELL   "));
}

TEST(PlanText, SaysBothShortages) {
  facts::Plan plan = sample_plan_that_does_not_fit();
  plan.ram.capacity = {testing::gib(128), facts::Provenance::given, ""};
  plan.fits_ram = false;
  EXPECT_THAT(plan_text(plan, {}),
              HasSubstr("\n               each node needs 150.0 GiB, 22.0 GiB more than the 128"));
}

TEST(PlanText, NamesFromFilesCannotDriveTheTerminal) {
  facts::Plan plan = sample_plan();
  plan.job.name = "red\x1b[31m\nFITS";
  plan.warnings = {"\x1b]0;title\x07"};
  const std::string text = plan_text(plan, {});
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
  EXPECT_THAT(text, HasSubstr("red?[31m?FITS\n"));
}

TEST(PlanText, AnEmptyPlanIsNoReasonToFail) {
  expect_within(plan_text(facts::Plan{}, {}), 100);
  expect_within(plan_text(facts::Plan{}, {.columns = 1}), 72);
}

TEST(PlanText, SettingsOfAdviceCanBePastedIntoAShell) {
  facts::Plan plan = sample_plan_that_does_not_fit();
  plan.balance.advice.front().set = {{"train.recompute", "{ every = 2 }"}};
  EXPECT_THAT(plan_text(plan, {}), HasSubstr("--set 'train.recompute={ every = 2 }'"));
}

}  // namespace
}  // namespace steelyard
