// The moments as a trace in Chrome's JSON format, which Perfetto reads (ui.perfetto.dev):
// "Trace Event Format", complete events (X), counters (C) and metadata (M).
#include <fmt/format.h>

#include "report/report.h"
#include "report/timeline_data.h"

namespace steelyard::report {
namespace {

// A moment lasts so many of the viewer's microseconds: vram knows an order, no time.
constexpr std::size_t kMoment = 1000;

class Events {
 public:
  explicit Events(std::size_t process) : process_(process) {}

  void named(const std::string& name) {
    add(R"("ph":"M","name":"process_name","args":{{"name":{}}})", json_text(name));
  }
  void slice(std::string_view name, std::string_view operation, std::size_t from, std::size_t to) {
    add(R"("ph":"X","tid":1,"name":{},"ts":{},"dur":{},"args":{{"operator":{}}})", json_text(name),
        from * kMoment, (to - from) * kMoment, json_text(operation));
  }
  void counter(std::string_view name, std::size_t at, Bytes bytes) {
    add(R"("ph":"C","name":{},"ts":{},"args":{{"bytes":{}}})", json_text(name), at * kMoment,
        bytes.value());
  }
  [[nodiscard]] const std::vector<std::string>& all() const { return all_; }

 private:
  template <class... T>
  void add(fmt::format_string<T...> format, T&&... values) {
    all_.push_back(fmt::format("{{\"pid\":{},", process_) +
                   fmt::format(format, std::forward<T>(values)...) + "}");
  }

  std::size_t process_;
  std::vector<std::string> all_;
};

void add_moments(Events& events, const std::vector<facts::Moment>& moments) {
  for (std::size_t from = 0, to = 0; from < moments.size(); from = to) {
    while (to < moments.size() && moments[to].phase == moments[from].phase) ++to;
    events.slice(moments[from].phase, "", from, to);
  }
  for (std::size_t i = 0; i < moments.size(); ++i) {
    const facts::Moment& moment = moments[i];
    events.slice(moment.layer, moment.operation, i, i + 1);
    events.counter("total", i, moment.live.total());
    for (std::size_t c = 0; c < facts::kVramCategories; ++c) {
      events.counter(facts::EnumNames<facts::VramCategory>::values[c], i, moment.live.bytes[c]);
    }
  }
}

}  // namespace

std::string timeline_trace(const facts::Plan& plan) {
  std::vector<std::string> all;
  for (std::size_t i = 0; i < plan.vram.timelines.size(); ++i) {
    Events events(i + 1);
    events.named(plan.vram.ranks[i].kind);
    add_moments(events, plan.vram.timelines[i]);
    all.insert(all.end(), events.all().begin(), events.all().end());
  }
  return fmt::format(
      "{{\"displayTimeUnit\":\"ms\",\"otherData\":{{\"job\":{},\"time\":\"the order of layers: one "
      "moment is drawn as 1 ms and lasts as long as it lasts\"}},\n\"traceEvents\":[\n{}\n]}}\n",
      json_text(plan.job.name), fmt::join(all, ",\n"));
}

}  // namespace steelyard::report
