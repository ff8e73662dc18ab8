// A step as a trace in Chrome's JSON format, which Perfetto reads (ui.perfetto.dev): "Trace Event
// Format", complete events (X) in microseconds and metadata (M).
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>

#include "report/report.h"
#include "report/timeline_data.h"

namespace steelyard::report {
namespace {

// From above to below, as the viewer draws them.
constexpr std::array<std::string_view, 6> kTracks = {"phases",        "layers", "GPU",
                                                     "communication", "copies", "drive"};

std::size_t thread_of(const std::string& track) {
  const auto* const found = std::find(kTracks.begin(), kTracks.end(), track);
  return static_cast<std::size_t>(found - kTracks.begin()) + 1;
}

std::int64_t nanoseconds(Seconds time) {
  constexpr double kNano = 1e9;
  return std::llround(time.value() * kNano);
}

// Perfetto multiplies by 1,000 and cuts off what is below a nanosecond: 0.4 ns more keep it from
// cutting a whole one, so that a span never begins before the one before it has ended.
std::string microseconds(std::int64_t nanos, const char* less) {
  constexpr std::int64_t kPerMicro = 1000;
  return fmt::format("{}.{:03}{}", nanos / kPerMicro, nanos % kPerMicro, less);
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
  std::map<std::string, std::int64_t> ends;  // of each track's last span
  for (const facts::PaceSpan& span : why.spans) {
    std::int64_t& ended = ends[span.track];
    std::int64_t from = nanoseconds(span.start);
    const std::int64_t to = std::max(from, nanoseconds(span.start + span.length));
    // What follows the span before it may be rounded to a nanosecond earlier than its end.
    if (from == ended - 1) from = std::min(ended, to);
    ended = to;
    events.push_back(fmt::format(R"({{"pid":1,"tid":{},"ph":"X","name":{},"ts":{},"dur":{},)"
                                 R"("args":{{"phase":{},"layer":{}}}}})",
                                 thread_of(span.track), json_text(span.name),
                                 microseconds(from, "4"), microseconds(to - from, ""),
                                 json_text(span.phase), json_text(span.layer)));
  }
  return fmt::format(
      "{{\"displayTimeUnit\":\"ms\",\"otherData\":{{\"job\":{},\"step_seconds\":{}}},\n"
      "\"traceEvents\":[\n{}\n]}}\n",
      json_text(why.job), why.pace.step ? fmt::format("{}", why.pace.step->value()) : "null",
      fmt::join(events, ",\n"));
}

}  // namespace steelyard::report
