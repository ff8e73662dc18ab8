// `steelyard rehearse`.
#include "report/report.h"

#include <fmt/format.h>

#include "base/format.h"
#include "base/text_table.h"
#include "facts/rehearsal.h"
#include "report/paint.h"

namespace steelyard::report {
namespace {

using facts::Rehearsal;

template <class T>
std::string known(const std::optional<T>& value) {
  return value ? to_text(*value) : "?";
}
// Without its unit, which stands at the head of the column.
std::string number(const std::optional<SamplesPerSecond>& rate) {
  const std::string text = known(rate);
  return text.substr(0, text.find(' '));
}
std::string share(const std::optional<Ratio>& value) {
  return value ? fmt::format("{:.1f} %", 100 * value->value()) : "?";
}

std::string head(const Rehearsal& r, const Paint& paint) {
  const facts::RehearsalSetting& s = r.setting;
  std::string text = fmt::format("{}: {}, {} records, {}\n", paint.outside(s.data), s.format,
                                 grouped(s.records), to_text(s.bytes));
  text += fmt::format("{} accelerator{} {} {} samples", grouped(s.accelerators),
                      s.accelerators == 1 ? "" : "s", paint.signs().times, grouped(s.batch));
  text += s.step_time.value() > 0 ? fmt::format(" every {}", to_text(s.step_time))
                                  : std::string(" as fast as they come");
  text += fmt::format(", {} worker{}, {} batch{} ahead of each\n", grouped(s.workers),
                      s.workers == 1 ? "" : "s", grouped(s.prefetch), s.prefetch == 1 ? "" : "es");
  text += fmt::format("read by {}, {} requests at once, {}\n", s.reader, grouped(s.read_depth),
                      s.direct ? "past the page cache" : "through the page cache");
  text +=
      fmt::format("{} samples in {} ({:.2f} epochs), ended by {}\n\n", grouped(r.samples.value()),
                  to_text(r.elapsed), r.epochs, facts::name_of(r.end));
  return text;
}

std::string figures(const Rehearsal& r) {
  const bool planned = r.planned.has_value();
  TextTable table({{""}, {"measured", Align::right}, {planned ? "planned" : "", Align::right}});
  const auto add = [&](const char* what, std::string measured, std::string plan = {}) {
    table.add({what, std::move(measured), planned ? std::move(plan) : std::string()});
  };
  if (r.setting.step_time.value() > 0) {
    add("accelerators used, mean", share(r.utilization_mean),
        planned ? share(r.planned->utilization) : "");
    add("accelerators used, least", share(r.utilization_least));
  }
  add("samples", to_text(r.rate), planned ? known(r.planned->samples) : "");
  add("read from files", to_text(r.read_rate));
  add("limited by", r.limited_by.empty() ? "nothing" : r.limited_by,
      planned ? (r.planned->limited_by.empty() ? "nothing" : r.planned->limited_by) : "");
  return table.text() + "\n";
}

std::string stages(const Rehearsal& r) {
  const bool planned = r.planned.has_value();
  TextTable table({{"stage"},
                   {"threads", Align::right},
                   {"can, samples/s", Align::right},
                   {planned ? "planned" : "", Align::right},
                   {"busy", Align::right},
                   {"data missing", Align::right},
                   {"room missing", Align::right},
                   {"CPU", Align::right}});
  for (const facts::RehearsalStage& stage : r.stages) {
    table.add({stage.name, grouped(stage.threads), number(stage.can),
               stage.planned ? number(stage.planned) : "", to_text(stage.busy),
               to_text(stage.waits_for_data), to_text(stage.waits_for_room), to_text(stage.cpu)});
  }
  return table.text() + "\n";
}

std::string memory(const Rehearsal& r) {
  const facts::RehearsalMemory& m = r.memory;
  const bool planned = r.planned.has_value();
  TextTable table(
      {{"memory"}, {"the most", Align::right}, {planned ? "planned" : "", Align::right}});
  const auto add = [&](const char* what, Bytes measured, std::optional<Bytes> plan = {}) {
    table.add({what, to_text(measured), plan ? to_text(*plan) : std::string()});
  };
  const facts::RehearsalPlanned p = r.planned.value_or(facts::RehearsalPlanned{});
  add("index of records", m.index, p.index);
  add("read buffers", m.read_buffers, p.read_buffers);
  add("batches", m.batches, p.batches);
  add("decoders and threads", m.decoding, p.decoding);
  add("process, told before the start", m.needed);
  add("process, measured", m.peak, p.peak);
  if (m.page_cache) add("page cache of the control group", *m.page_cache);
  if (m.group_peak) add("all of the control group", *m.group_peak);
  if (m.limit) add("limit", *m.limit);
  return table.text() + "\n";
}

std::string devices(const Rehearsal& r, const Paint& paint) {
  if (r.devices.empty()) return {};
  TextTable table({{"accelerator"},
                   {"at"},
                   {"NUMA node", Align::right},
                   {"batches", Align::right},
                   {"copied", Align::right},
                   {"time", Align::right},
                   {"while copying", Align::right}});
  for (const facts::RehearsalDevice& device : r.devices) {
    table.add({fmt::format("{} {}", device.accelerator, paint.outside(device.name)),
               paint.outside(device.pci), device.numa_node ? grouped(*device.numa_node) : "?",
               grouped(device.copies), to_text(device.bytes), to_text(device.copying),
               known(device.rate)});
  }
  return table.text() + "\n";
}

// On a machine with one node there is nothing to tell.
std::string nodes(const Rehearsal& r) {
  if (r.nodes.size() < 2) return {};
  TextTable table({{"memory that the kernel gave"},
                   {"to threads there", Align::right},
                   {"to others", Align::right},
                   {"elsewhere instead", Align::right}});
  for (const facts::RehearsalNode& node : r.nodes) {
    table.add({fmt::format("NUMA node {}", node.node), to_text(node.local), to_text(node.remote),
               to_text(node.missed)});
  }
  return table.text() + "\n";
}

std::string tuning(const facts::RehearsalTuning& tuning) {
  TextTable table({{"tried: workers", Align::right},
                   {"prefetch", Align::right},
                   {"read depth", Align::right},
                   {"used, least", Align::right},
                   {"memory", Align::right},
                   {""}});
  for (const facts::RehearsalTry& one : tuning.tries) {
    table.add({grouped(one.workers), grouped(one.prefetch), grouped(one.depth),
               share(one.utilization), to_text(one.needed), one.enough ? "enough" : "too little"});
  }
  return fmt::format("{}{} is {}reached\n\n", table.text(), percent(tuning.target),
                     tuning.reached ? "" : "not ");
}

std::string crew(const facts::RehearsalCrew& crew, const Paint& paint) {
  TextTable table({{"rank", Align::right},
                   {"host"},
                   {"used alone", Align::right},
                   {"own data missing", Align::right},
                   {"others missing", Align::right},
                   {"came last", Align::right},
                   {"memory told", Align::right},
                   {"measured", Align::right}});
  for (const facts::RehearsalRank& rank : crew.ranks) {
    table.add({grouped(rank.rank), paint.outside(rank.host), share(rank.alone),
               to_text(rank.waits_for_data), to_text(rank.waits_for_others), grouped(rank.last),
               to_text(rank.needed), to_text(rank.peak)});
  }
  std::string text = fmt::format("{} process{} on {} host{}, {} steps together", crew.ranks.size(),
                                 crew.ranks.size() == 1 ? "" : "es", grouped(crew.hosts),
                                 crew.hosts == 1 ? "" : "s", grouped(crew.steps));
  for (const facts::RehearsalRank& rank : crew.ranks) {
    if (crew.slowest != rank.rank) continue;
    text += fmt::format("; the slowest: rank {} on {}", rank.rank, paint.outside(rank.host));
  }
  return text + "\n" + table.text() + "\n";
}

}  // namespace

std::string rehearsal_text(const Rehearsal& rehearsal, const Style& style) {
  const Paint paint(style);
  std::string text = head(rehearsal, paint);
  if (rehearsal.tuning) text += tuning(*rehearsal.tuning);
  text += figures(rehearsal);
  if (rehearsal.crew) text += crew(*rehearsal.crew, paint);
  text += stages(rehearsal) + devices(rehearsal, paint) + memory(rehearsal) + nodes(rehearsal);
  for (const facts::RehearsalFault& fault : rehearsal.faults) {
    text += fmt::format("{}: {}\n", facts::name_of(fault.kind), grouped(fault.count));
    for (const std::string& first : fault.first) text += "  " + paint.outside(first) + "\n";
  }
  for (const std::string& note : rehearsal.notes) text += "note: " + paint.outside(note) + "\n";
  return text;
}

}  // namespace steelyard::report
