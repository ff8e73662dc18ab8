// `steelyard compare` and `steelyard limits`.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/format.h"
#include "base/text.h"
#include "base/text_table.h"
#include "report/paint.h"
#include "report/report.h"

namespace steelyard::report {
namespace {

using facts::Plan;

std::string verdict_of(const Plan& plan) {
  if (plan.fits_vram == false) return "VRAM short";
  if (plan.fits_ram == false) return "RAM short";
  if (!plan.fits_vram || !plan.fits_ram) return "unknown";
  return "fits";
}

template <class T>
std::string of(const T& needed, const facts::Known<T>& there) {
  return fmt::format("{} / {}", to_text(needed), there ? to_text(*there) : "?");
}

std::string rate_of(const Plan& plan) {
  if (plan.pace.tokens) return to_text(*plan.pace.tokens);
  return plan.pace.samples ? to_text(*plan.pace.samples) : "?";
}

std::string price_of(const Plan& plan) {
  if (!plan.cost) return "no price";
  const std::string& currency = plan.cost->currency;
  if (plan.cost->per_million_tokens) {
    return fmt::format("{:.3g} {} / M tokens", *plan.cost->per_million_tokens, currency);
  }
  if (plan.cost->per_million_samples) {
    return fmt::format("{:.3g} {} / M samples", *plan.cost->per_million_samples, currency);
  }
  return fmt::format("{:.3g} {} / h", plan.cost->per_hour, currency);
}

std::string ratio_of(const std::optional<Ratio>& ratio) {
  return ratio ? fmt::format("{:.1f}", ratio->value()) : "?";
}

// The part of the cards and of the hosts that the job leaves empty.
std::string idle_of(const Plan& plan) {
  const auto part = [](Bytes used, const facts::Known<Bytes>& there) -> std::string {
    if (!there || there->value() <= 0) return "?";
    return percent(Ratio(std::max(0.0, 1.0 - (used / *there).value())));
  };
  return fmt::format("{} / {}", part(plan.vram.fullest.peak_device_used, plan.vram.capacity),
                     part(plan.ram.peak, plan.ram.capacity));
}

std::string fabric_of(const Plan& plan) {
  const std::int64_t gpus = plan.job.machine.gpus.value_or(plan.machine.gpus);
  return fmt::format("{} x {}", grouped(plan.job.machine.nodes), gpus);
}

std::string limit_words(const facts::Limit& limit) {
  if (!limit.limit) return "none";
  return (limit.beyond ? "over " : "") + grouped(*limit.limit);
}

}  // namespace

std::string comparison_text(const facts::MachinesCompared& comparison, const Style& style) {
  const Paint paint(style);
  std::string text = fmt::format("{}: {} GPUs on {} machines\n\n", paint.outside(comparison.job),
                                 grouped(comparison.gpus), comparison.machines.size());
  TextTable table({{"machine"},
                   {"nodes x GPUs"},
                   {"verdict"},
                   {"VRAM per GPU", Align::right},
                   {"RAM per node", Align::right},
                   {"step", Align::right},
                   {"rate", Align::right},
                   {"price", Align::right},
                   {"RAM : VRAM needed / there", Align::right},
                   {"idle VRAM / RAM", Align::right}});
  std::string refused;
  for (const facts::ComparedMachine& line : comparison.machines) {
    const std::string name = paint.outside(line.machine);
    if (!line.plan) {
      table.add({name, "", "refused"});
      refused += fmt::format("{}: {}\n", name, paint.outside(line.refused));
      continue;
    }
    const Plan& plan = *line.plan;
    table.add({name, fabric_of(plan), verdict_of(plan),
               of(plan.vram.fullest.peak_device_used, plan.vram.capacity),
               of(plan.ram.peak, plan.ram.capacity),
               plan.pace.step ? to_text(*plan.pace.step) : "?", rate_of(plan), price_of(plan),
               ratio_of(plan.balance.ratio_needed) + " / " + ratio_of(plan.balance.ratio_installed),
               idle_of(plan)});
  }
  text += table.text(0, style.ascii ? "-" : "─");
  if (!refused.empty()) text += "\n" + refused;
  return text;
}

std::string limits_text(const facts::Limits& limits, const Style& style) {
  const Paint paint(style);
  std::string text =
      fmt::format("{}: how far each size can go, the rest as it is{}\n\n",
                  paint.outside(limits.job), limits.fits ? "" : " (as it is, it does not fit)");
  TextTable table({{"key"},
                   {"what"},
                   {"now", Align::right},
                   {"", Align::left},
                   {"limit", Align::right},
                   {"one step further"}});
  for (const facts::Limit& limit : limits.limits) {
    const std::string breaks = limit.beyond ? "not searched further" : limit.breaks;
    table.add({limit.key, limit.what, grouped(limit.now),
               limit.sense == facts::LimitSense::largest ? "at most" : "at least",
               limit_words(limit), paint.outside(breaks)});
  }
  text += table.text(0, style.ascii ? "-" : "─");
  return text;
}

namespace {

std::string settings_of(const facts::KeySettings& set) {
  std::string text;
  for (const auto& [key, value] : set) text += fmt::format(" --set {}={}", key, value);
  return text.empty() ? " (the job as it is)" : text;
}

// What is not as small as can be: "tensor 8 · pipeline 4 · fsdp · micro-batch 2 · full recompute".
std::string layout_words(const facts::KeySettings& set) {
  std::string words;
  for (const auto& [key, value] : set) {
    if (value == "1" || value == "false" || value == "none") continue;
    const std::string name = key.substr(key.find('.') + 1);
    if (!words.empty()) words += ", ";
    words += value == "true" ? name : fmt::format("{} {}", name, value);
  }
  return words.empty() ? "as plain as can be" : words;
}

// Of one step, all GPUs at their rated power.
std::string energy_of(const facts::FoundLayout& found) {
  if (!found.joules_per_step) return "no rated power";
  constexpr double kPerKilowattHour = 3.6e6;
  const double joules = *found.joules_per_step;
  if (joules < kPerKilowattHour) return fmt::format("{:.1f} kJ", joules / 1e3);
  return fmt::format("{:.2f} kWh", joules / kPerKilowattHour);
}

void add_places(const facts::SearchResult& result, const Paint& paint, TextTable& table) {
  const bool of_energy = result.goal == facts::SearchGoal::energy;
  for (const facts::SearchedPlace& place : result.places) {
    const std::string name = paint.outside(place.machine);
    const std::string nodes = fmt::format("{} x {}", grouped(place.nodes), place.gpus);
    if (place.found.empty()) {
      table.add({"", name, nodes, place.layouts == 0 ? "refused" : "nothing fits"});
      continue;
    }
    for (const facts::FoundLayout& found : place.found) {
      const Plan& plan = found.plan;
      table.add({found.on_front ? "*" : "", name, nodes,
                 plan.pace.step ? to_text(*plan.pace.step) : "?", rate_of(plan),
                 of_energy ? energy_of(found) : price_of(plan),
                 of(plan.vram.fullest.peak_device_used, plan.vram.capacity), to_text(plan.ram.peak),
                 layout_words(found.set)});
    }
  }
}

std::string told(const facts::SearchedPlace& place, const Paint& paint) {
  std::string text = fmt::format("\n{} x {} ({} layouts", grouped(place.nodes),
                                 paint.outside(place.machine), grouped(place.layouts));
  if (place.illegal > 0) text += fmt::format(", {} refused", grouped(place.illegal));
  text += ")\n";
  if (!place.refused.empty()) text += "  refused: " + paint.outside(place.refused) + "\n";
  if (!place.found.empty()) text += "  best: " + settings_of(place.found.front().set) + "\n";
  for (const facts::LostLayout& lost : place.lost) {
    text += fmt::format("  {}: {} ({})\n", lost.step ? to_text(*lost.step) : "?", lost.why,
                        layout_words(lost.set));
  }
  return text;
}

}  // namespace

std::string search_text(const facts::SearchResult& result, const Style& style) {
  const Paint paint(style);
  const std::string free = result.free.empty()
                               ? "nothing, for the job says all (--free KEY frees a key)"
                               : fmt::format("{}", fmt::join(result.free, ", "));
  std::string text =
      fmt::format("{}: {} samples per step; free: {}{}\n\n", paint.outside(result.job),
                  grouped(result.global_batch), free,
                  result.interrupted ? "\nInterrupted: the best so far." : "");
  const bool energy = result.goal == facts::SearchGoal::energy;
  TextTable table({{""},
                   {"machine"},
                   {"nodes x GPUs"},
                   {"step", Align::right},
                   {"rate", Align::right},
                   {energy ? "energy per step" : "price", Align::right},
                   {"VRAM per GPU", Align::right},
                   {"RAM per node", Align::right},
                   {"layout"}});
  add_places(result, paint, table);
  text += table.text(0, style.ascii ? "-" : "─");
  text += "* on the front: nothing is better in step, price, GPUs and RAM at once\n";
  if (energy) text += "energy: the GPUs alone, at their rated power all the time\n";
  constexpr std::size_t kTold = 3;
  for (std::size_t i = 0; i < result.places.size() && i < kTold; ++i) {
    text += told(result.places[i], paint);
  }
  return text;
}

}  // namespace steelyard::report
