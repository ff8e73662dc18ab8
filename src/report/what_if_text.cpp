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
  const auto counted = [](std::size_t many, const char* what) {
    return fmt::format("{} {}{}", grouped(static_cast<std::int64_t>(many)), what,
                       many == 1 ? "" : "s");
  };
  std::string text = fmt::format("{}: {} on {}\n\n", paint.outside(comparison.job),
                                 counted(static_cast<std::size_t>(comparison.gpus), "GPU"),
                                 counted(comparison.machines.size(), "machine"));
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

// As a shell takes them: what it would read itself stands in quotes.
std::string settings_of(const facts::KeySettings& set) {
  std::string text;
  for (const auto& [key, value] : set) {
    const bool plain = value.find_first_not_of(
                           "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                           "0123456789._-/:,@+") == std::string::npos;
    const char* quote = plain ? "" : "'";
    text += fmt::format(" --set {}{}={}{}", quote, key, value, quote);
  }
  return text.empty() ? " (the job as it is)" : text;
}

// The place and what follows from the rest, which other columns and the line of settings say.
bool follows(const std::string& key) {
  return key.starts_with("machine") || key == "train.global_batch" || key == "parallel.data" ||
         key == "train.gradient_accumulation" || key == "parallel.shard_group";
}

// What is not as small as can be: "tensor 8, pipeline 4, sharding fsdp, micro_batch 2".
std::string layout_words(const facts::KeySettings& set) {
  std::string words;
  for (const auto& [key, value] : set) {
    if (value == "1" || value == "false" || value == "none" || follows(key)) continue;
    const std::string name = key.substr(key.find('.') + 1);
    if (!words.empty()) words += ", ";
    words += value == "true" ? name : fmt::format("{} {}", name, value);
  }
  return words.empty() ? "as the job says" : words;
}

// Of one step, all GPUs at their rated power.
std::string energy_of(const facts::FoundLayout& found) {
  if (!found.joules_per_step) return "no rated power";
  constexpr double kPerKilowattHour = 3.6e6;
  const double joules = *found.joules_per_step;
  if (joules < kPerKilowattHour) return fmt::format("{:.1f} kJ", joules / 1e3);
  return fmt::format("{:.2f} kWh", joules / kPerKilowattHour);
}

std::string nothing_of(const facts::SearchedPlace& place) {
  if (!place.finished) return "not finished";
  if (place.layouts == 0) return "refused";
  return place.outside.empty() ? "nothing fits" : "not within";
}

void add_places(const facts::SearchResult& result, const Paint& paint, TextTable& table) {
  const bool of_energy = result.goal == facts::SearchGoal::energy;
  for (const facts::SearchedPlace& place : result.places) {
    const std::string name = paint.outside(place.machine);
    const std::string nodes = fmt::format("{} x {}", grouped(place.nodes), place.gpus);
    if (place.found.empty()) {
      table.add({"", name, nodes, nothing_of(place)});
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

std::string counted(std::int64_t many, const char* what) {
  return fmt::format("{} {}{}", grouped(many), what, many == 1 ? "" : "s");
}

// Why the best one is not known to be the fastest, or why there is none.
std::string reasons_of(const facts::SearchedPlace& place, const Paint& paint) {
  std::string text;
  if (!place.refused.empty()) text += "  refused: " + paint.outside(place.refused) + "\n";
  if (!place.finished && place.found.empty()) text += "  not finished, nothing found yet\n";
  if (!place.outside.empty()) text += "  something fits, but not within: " + place.outside + "\n";
  if (place.found.empty()) return text;
  const facts::FoundLayout& best = place.found.front();
  if (best.plan.pace.step) return text + "  best: " + settings_of(best.set) + "\n";
  std::vector<std::string> missing;
  for (const std::string& what : best.plan.pace.missing) missing.push_back(paint.outside(what));
  return text + fmt::format("  fits, with the least RAM: {}\n  step unknown (not known: {})\n",
                            settings_of(best.set), fmt::join(missing, ", "));
}

std::string told(const facts::SearchedPlace& place, const Paint& paint) {
  std::string text = fmt::format("\n{} x {} ({}", grouped(place.nodes),
                                 paint.outside(place.machine), counted(place.layouts, "layout"));
  if (place.illegal > 0) text += fmt::format(", {} refused", grouped(place.illegal));
  text += ")\n" + reasons_of(place, paint);
  for (const facts::LostLayout& lost : place.lost) {
    text += fmt::format("  {}: {} ({})\n", lost.step ? to_text(*lost.step) : "step unknown",
                        lost.why, layout_words(lost.set));
  }
  if (!place.change.empty()) {
    text += fmt::format("  fits with {}:{}\n", place.change, settings_of(place.change_set));
  }
  return text;
}

// What was left out, and what of the prices was not compared.
std::string remarks_of(const facts::SearchResult& result, const Paint& paint) {
  std::string text;
  for (const facts::ExcludedPlace& place : result.excluded) {
    text += fmt::format("left out: {} x {}: {}\n", grouped(place.nodes),
                        paint.outside(place.machine), paint.outside(place.why));
  }
  if (result.currencies.size() > 1) {
    std::vector<std::string> names;
    for (const std::string& currency : result.currencies) names.push_back(paint.outside(currency));
    text += fmt::format(
        "prices in {} are not converted: each is compared with those of its own currency, and "
        "--within price is in the machine's own\n",
        fmt::join(names, ", "));
  }
  return text;
}

std::string free_of(const facts::SearchResult& result) {
  if (!result.free.empty()) return fmt::format("{}", fmt::join(result.free, ", "));
  if (result.places.empty()) return "no place is left to search";
  return "nothing, for the job says all (--free KEY frees a key)";
}

}  // namespace

std::string search_text(const facts::SearchResult& result, const Style& style) {
  const Paint paint(style);
  std::string text = fmt::format("{}: {} per step; {}{}{}\n\n", paint.outside(result.job),
                                 counted(result.global_batch, "sample"),
                                 result.places.empty() ? "" : "free: ", free_of(result),
                                 result.interrupted ? "\nInterrupted: what was found so far." : "");
  if (result.places.empty()) return text + remarks_of(result, paint);
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
  text += remarks_of(result, paint);
  constexpr std::size_t kTold = 3;
  for (std::size_t i = 0; i < result.places.size() && i < kTold; ++i) {
    text += told(result.places[i], paint);
  }
  return text;
}

}  // namespace steelyard::report
