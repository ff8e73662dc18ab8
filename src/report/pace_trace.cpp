// A step as a trace in Chrome's JSON format, which Perfetto reads (ui.perfetto.dev): "Trace Event
// Format", complete events (X) in microseconds and metadata (M).
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "report/report.h"
#include "report/timeline_data.h"

namespace steelyard::report {
namespace {

constexpr double kMicro = 1e6;
// From above to below, as the viewer draws them.
constexpr std::array<std::string_view, 5> kTracks = {"phases", "layers", "GPU", "communication",
                                                     "copies"};

std::size_t thread_of(const std::string& track) {
  const auto* const found = std::find(kTracks.begin(), kTracks.end(), track);
  return static_cast<std::size_t>(found - kTracks.begin()) + 1;
}

}  // namespace

std::string pace_trace(const facts::PaceWhy& why) {
  std::vector<std::string> events;
  events.push_back(fmt::format(R"({{"pid":1,"ph":"M","name":"process_name","args":{{"name":{}}}}})",
                               json_text("one step of " + why.job)));
  for (const std::string_view track : kTracks) {
    events.push_back(
        fmt::format(R"({{"pid":1,"tid":{},"ph":"M","name":"thread_name","args":{{"name":{}}}}})",
                    thread_of(std::string(track)), json_text(track)));
  }
  for (const facts::PaceSpan& span : why.spans) {
    events.push_back(
        fmt::format(R"({{"pid":1,"tid":{},"ph":"X","name":{},"ts":{:.6f},"dur":{:.6f},)"
                    R"("args":{{"phase":{},"layer":{}}}}})",
                    thread_of(span.track), json_text(span.name), span.start.value() * kMicro,
                    span.length.value() * kMicro, json_text(span.phase), json_text(span.layer)));
  }
  return fmt::format(
      "{{\"displayTimeUnit\":\"ms\",\"otherData\":{{\"job\":{},\"step_seconds\":{}}},\n"
      "\"traceEvents\":[\n{}\n]}}\n",
      json_text(why.job), why.pace.step ? fmt::format("{}", why.pace.step->value()) : "null",
      fmt::join(events, ",\n"));
}

}  // namespace steelyard::report
