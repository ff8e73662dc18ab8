#include "report/steelyard_drawing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/text.h"

namespace steelyard::report {
namespace {

using ::testing::ElementsAre;

const Paint& plain() {
  static const Paint paint({.columns = 100, .colour = false, .ascii = true});
  return paint;
}

facts::BalancePlan balance(std::optional<Ratio> needed, std::optional<Ratio> installed) {
  facts::BalancePlan plan;
  plan.ratio_needed = needed;
  plan.ratio_installed = installed;
  plan.rule_low = Ratio(2.0);
  plan.rule_high = Ratio(3.0);
  return plan;
}

TEST(SteelyardDrawing, NeededInstalledAndRuleStandOnOneScale) {
  // 54 columns: 8 before the beam, 41 cells for 0..4 (10 apart), 5 after it.
  EXPECT_THAT(steelyard_lines(balance(Ratio(1.5), Ratio(3.5)), 54, plain()),
              ElementsAre("                       v needed 1.5",
                          "VRAM O--|---------+---------+=========+---------+ RAM",
                          "        0         1         2         3         4",
                          "                             installed 3.5 ^"));
}

TEST(SteelyardDrawing, AnOpenEndedRuleGoesOnToTheEnd) {
  facts::BalancePlan plan = balance(std::nullopt, std::nullopt);
  plan.rule_open_ended = true;
  EXPECT_THAT(steelyard_lines(plan, 54, plain()),
              ElementsAre("VRAM O--|---------+---------+=========+=========> RAM",
                          "        0         1         2         3         4"));
}

TEST(SteelyardDrawing, AnyRatioKeepsToTheWidth) {
  const double huge = std::numeric_limits<double>::max();
  for (const double ratio :
       {0.0, 1e-9, 0.99, 4.0, 17.3, 250.0, 1e6, huge, std::numeric_limits<double>::infinity(),
        std::numeric_limits<double>::quiet_NaN()}) {
    for (const std::string& line :
         steelyard_lines(balance(Ratio(ratio), Ratio(ratio)), 60, plain())) {
      EXPECT_LE(display_width(line), 60U) << line;
    }
  }
}

TEST(SteelyardDrawing, RatioText) {
  EXPECT_EQ(ratio_text(Ratio(3.0)), "3");
  EXPECT_EQ(ratio_text(Ratio(3.24)), "3.2");
  EXPECT_EQ(ratio_text(Ratio(0.04)), "<0.1");
  EXPECT_EQ(ratio_text(Ratio(0.0)), "0");
  EXPECT_EQ(ratio_text(Ratio(3e9)), "3.0e+09");
  EXPECT_EQ(ratio_text(Ratio(25.7)), "26");
}

}  // namespace
}  // namespace steelyard::report
