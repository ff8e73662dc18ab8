// The page of a step's time, and its trace.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "base/text.h"
#include "report/report.h"

namespace steelyard {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

facts::PaceWhy sample_why() {
  facts::PaceWhy why;
  why.job = "sample";
  why.pace.step = Seconds(1.0);
  why.pace.breakdown.compute = Seconds(0.6);
  why.pace.breakdown.exposed_communication = Seconds(0.3);
  why.pace.breakdown.bubble = Seconds(0.1);
  facts::PaceRow products;
  products.phase = "forward";
  products.layer = "model.layers";
  products.operation = "mm";
  products.bound = facts::PaceBound::arithmetic;
  products.count = 1200;
  products.busy = products.step = Seconds(0.6);
  facts::PaceRow sent = products;
  sent.operation = "all_gather";
  sent.bound = facts::PaceBound::network;
  sent.busy = Seconds(0.5);
  sent.step = Seconds(0.3);
  facts::PaceRow bubble;
  bubble.operation = "pipeline bubble";
  bubble.bound = facts::PaceBound::stages;
  bubble.busy = bubble.step = Seconds(0.1);
  why.rows = {products, sent, bubble};
  facts::PaceSpan work;
  work.track = "GPU";
  work.name = "<mm>";
  work.length = Seconds(0.5);
  work.counted = true;
  facts::PaceSpan other = work;
  other.track = "communication";
  other.name = "all_gather";
  other.start = Seconds(0.125);
  other.counted = false;
  why.spans = {work, other};
  why.helps = {{"a faster network", Seconds(0.3)}};
  return why;
}

TEST(WhyPaceText, RowsWithTheirShareTheirBoundAndWhatIsHidden) {
  const std::string text = report::why_pace_text(sample_why(), {}, 2);
  EXPECT_THAT(text, HasSubstr("600 ms   60 %  mm of model.layers"));
  EXPECT_THAT(text, HasSubstr("1,200 runs"));
  EXPECT_THAT(text, HasSubstr("bound by network"));
  EXPECT_THAT(text, HasSubstr("200 ms hidden"));
  EXPECT_THAT(text, HasSubstr("100 ms   10 %  1 smaller row\n"));
  EXPECT_THAT(text, HasSubstr("a faster network: at most 300 ms"));
  EXPECT_THAT(report::why_pace_text(sample_why(), {}, 9), Not(HasSubstr("smaller row")));
}

TEST(WhyPaceText, StaysWithinItsColumns) {
  std::istringstream lines(report::why_pace_text(sample_why(), {.columns = 60, .ascii = true}));
  for (std::string line; std::getline(lines, line);) EXPECT_LE(display_width(line), 60U) << line;
}

TEST(WhyPaceText, UnknownStep) {
  facts::PaceWhy why;
  why.job = "sample";
  why.pace.missing = {"memory bandwidth of X"};
  EXPECT_THAT(report::why_pace_text(why, {}), HasSubstr("memory bandwidth of X"));
}

TEST(PaceTrace, EventsInMicrosecondsOnTheirTracks) {
  const std::string trace = report::pace_trace(sample_why());
  EXPECT_THAT(trace, HasSubstr(R"("ph":"X","name":"\u003cmm>","ts":0.0004,"dur":500000.000,)"));
  EXPECT_THAT(trace, HasSubstr(R"("tid":4,"ph":"X","name":"all_gather","ts":125000.0004,)"));
  EXPECT_THAT(trace, HasSubstr(R"("tid":3,"ph":"M","name":"thread_name","args":{"name":"GPU"})"));
  EXPECT_THAT(trace, HasSubstr(R"("step_seconds":1)"));
}

}  // namespace
}  // namespace steelyard
