// The drawn timeline and the trace: what they hold, and that no name gets out of its place. How the
// page looks is for eyes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "report/report.h"
#include "report/sample_plan.h"
#include "report/timeline_data.h"

namespace steelyard {
namespace {

using facts::VramCategory;
using ::testing::HasSubstr;
using ::testing::Not;

facts::Moment moment(const char* phase, const char* layer, std::int64_t activations) {
  facts::Moment at{phase, layer, "made", {}};
  at.live[VramCategory::parameters] = Bytes(100);
  at.live[VramCategory::activations] = Bytes(activations);
  return at;
}

facts::Plan plan_with_moments() {
  facts::Plan plan = testing::sample_plan();
  plan.vram.capacity = {Bytes(1000), facts::Provenance::catalogue, ""};
  plan.vram.ranks = {plan.vram.fullest};
  plan.vram.ranks[0].kind = "only rank";
  plan.vram.fullest.kind = "only rank";
  plan.vram.timelines = {
      {moment("forward", "h.0", 5), moment("forward", "h.1", 7), moment("backward", "h.1", 9)}};
  return plan;
}

std::size_t times(const std::string& text, const std::string& piece) {
  std::size_t count = 0;
  for (std::size_t at = text.find(piece); at != std::string::npos; at = text.find(piece, at + 1)) {
    ++count;
  }
  return count;
}

TEST(TimelineData, EachTextOnceAndBytesByCategory) {
  const std::string data = report::timeline_data(plan_with_moments());
  // forward 0, h.0 1, made 2, h.1 3, backward 4, in the order in which they are met.
  EXPECT_THAT(data, HasSubstr(R"("strings":["forward","h.0","made","h.1","backward"])"));
  EXPECT_THAT(data, HasSubstr(R"("phase":[0,0,4],"layer":[1,3,3],"operator":[2,2,2])"));
  // Categories in their order: parameters, gradients, optimizer, activations, ...
  EXPECT_THAT(data, HasSubstr(R"("live":[[100,0,0,5,0,0,0,0,0],[100,0,0,7,0,0,0,0,0],)"));
  EXPECT_THAT(data, HasSubstr(R"("capacity":1000,)"));
  facts::Plan unknown = plan_with_moments();
  unknown.vram.capacity = {};
  EXPECT_THAT(report::timeline_data(unknown), HasSubstr(R"("capacity":null,)"));
}

TEST(TimelineData, TextsAreEscaped) {
  EXPECT_EQ(report::json_text("a\"b\\c\n</script>"), R"("a\"b\\c\u000a\u003c/script>")");
}

TEST(TimelinePage, IsOneFileWithoutNetwork) {
  const std::string page = report::timeline_page(plan_with_moments());
  EXPECT_TRUE(page.starts_with("<!doctype html>"));
  for (const char* outside : {"src=", "href=", "@import", "url(", "fetch("}) {
    EXPECT_THAT(page, Not(HasSubstr(outside)));
  }
  // The only address is the name of SVG's namespace.
  EXPECT_EQ(times(page, "http"), 1U);
  EXPECT_THAT(page, HasSubstr("http://www.w3.org/2000/svg"));
  EXPECT_THAT(page, HasSubstr("layers in the order they run (not seconds)"));
  EXPECT_THAT(page, HasSubstr("prefers-color-scheme: dark"));
}

TEST(TimelinePage, NamesCannotBecomeMarkup) {
  facts::Plan plan = plan_with_moments();
  plan.job.name = "</script><b>&\"";
  plan.vram.timelines[0][0].layer = "</script><script>alert(1)";
  const std::string page = report::timeline_page(plan);
  EXPECT_THAT(page, Not(HasSubstr("<b>")));
  EXPECT_THAT(page, Not(HasSubstr("alert(1)</")));
  EXPECT_EQ(times(page, "<script"), 2U);  // the data and the program
  EXPECT_EQ(times(page, "</script>"), 2U);
  EXPECT_THAT(page, HasSubstr("&lt;/script&gt;&lt;b&gt;&amp;&quot;"));
}

TEST(TimelineTrace, SlicesOfPhasesAndLayersAndCountersByCategory) {
  const std::string trace = report::timeline_trace(plan_with_moments());
  EXPECT_EQ(times(trace, R"("ph":"M")"), 1U);
  // Two phases and three layers; three moments of nine categories and their sum.
  EXPECT_EQ(times(trace, R"("ph":"X")"), 5U);
  EXPECT_EQ(times(trace, R"("ph":"C")"), 30U);
  EXPECT_THAT(trace, HasSubstr(R"("name":"forward","ts":0,"dur":2000)"));
  EXPECT_THAT(trace, HasSubstr(R"("name":"backward","ts":2000,"dur":1000)"));
  EXPECT_THAT(trace, HasSubstr(R"("name":"h.1","ts":1000,"dur":1000,"args":{"operator":"made"})"));
  EXPECT_THAT(trace, HasSubstr(R"("name":"activations","ts":2000,"args":{"bytes":9})"));
  EXPECT_THAT(trace, HasSubstr(R"("name":"total","ts":2000,"args":{"bytes":109})"));
}

}  // namespace
}  // namespace steelyard
