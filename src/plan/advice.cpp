#include "plan/advice.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/format.h"
#include "plan/candidates.h"
#include "plan/figures.h"

namespace steelyard::plan {

namespace {

using facts::Advice;
using facts::Plan;

constexpr std::size_t kMostAdvice = 5;
// A step must get shorter by this share to be worth a line.
constexpr double kWorthwhileGain = 0.02;

struct Tried {
  Candidate candidate;
  Plan plan;
};

// Keys of the host's side leave the GPUs' program as it is.
bool of_the_host(const Candidate& candidate) {
  return std::all_of(candidate.set.begin(), candidate.set.end(), [](const auto& change) {
    return change.first.starts_with("checkpoint.") || change.first.starts_with("data.");
  });
}

std::optional<Plan> planned_with(const Request& request, const Plan& planned,
                                 const std::vector<Candidate>& changes, Shortcuts shortcuts = {}) {
  Request changed = request;
  changed.timeline = false;
  changed.advice = false;
  for (const Candidate& change : changes) change.apply(changed.job);
  const bool host_only = std::all_of(changes.begin(), changes.end(), of_the_host);
  if (host_only) shortcuts.alike = &planned;
  Result<Plan> plan = figures(changed, shortcuts);
  if (!plan) return std::nullopt;  // an impossible combination is no advice
  return std::move(*plan);
}

Candidate joined(const std::vector<Candidate>& changes) {
  Candidate all;
  for (const Candidate& change : changes) {
    all.what += (all.what.empty() ? "" : "; ") + change.what;
    for (const auto& setting : change.set) {
      std::erase_if(all.set, [&](const auto& old) { return old.first == setting.first; });
      all.set.push_back(setting);
    }
  }
  return all;
}

Advice advice_of(const Candidate& candidate, const Plan& before, const Plan& after) {
  Advice advice;
  advice.set = candidate.set;
  advice.fits = after.fits();
  advice.vram_peak = after.vram.fullest.peak_device_used;
  advice.ram_peak = after.ram.peak;
  advice.step = after.pace.step;
  if (after.cost) advice.cost_per_hour = after.cost->per_hour;
  // Only what changes, and only differences that the reader would see.
  std::vector<std::string> effects;
  const auto compare = [&](const char* what, const std::string& now, const std::string& then) {
    if (now != then) effects.push_back(fmt::format("{} {} instead of {}", what, now, then));
  };
  compare("each GPU", to_text(advice.vram_peak), to_text(before.vram.fullest.peak_device_used));
  if (before.pace.step && after.pace.step) {
    compare("step", to_text(*after.pace.step), to_text(*before.pace.step));
  }
  compare("host", to_text(advice.ram_peak), to_text(before.ram.peak));
  advice.sentence = candidate.what;
  if (!effects.empty()) advice.sentence += fmt::format(": {}", fmt::join(effects, ", "));
  return advice;
}

bool shorter(const Plan& a, const Plan& b) {
  return a.pace.step && b.pace.step &&
         a.pace.step->value() < b.pace.step->value() * (1.0 - kWorthwhileGain);
}

// By more than what the allocator's fragments come to by chance.
bool less(Bytes then, Bytes now) {
  constexpr double kSameByChance = 0.99;
  return now > Bytes() && (then / now).value() < kSameByChance;
}

// Each change alone; and, when none suffices, the changes one after the other until the job fits.
void make_it_fit(const Request& request, const Plan& planned,
                 const std::vector<Candidate>& candidates, std::vector<Advice>& advice) {
  std::vector<Candidate> together;
  std::optional<Plan> best;
  bool one_suffices = false;
  for (const Candidate& candidate : candidates) {
    const std::optional<Plan> alone = planned_with(request, planned, {candidate});
    if (!alone) continue;
    const bool helps =
        less(alone->vram.fullest.peak_device_used, planned.vram.fullest.peak_device_used) ||
        less(alone->ram.peak, planned.ram.peak);
    if (!helps) continue;
    one_suffices = one_suffices || alone->fits();
    if (alone->fits()) advice.push_back(advice_of(candidate, planned, *alone));
    if (best && best->fits()) continue;
    together.push_back(candidate);
    const bool first = together.size() == 1;  // which is the change alone
    std::optional<Plan> combined = first ? alone : planned_with(request, planned, together);
    if (!combined) {
      together.pop_back();
    } else {
      best = std::move(combined);
    }
  }
  if (!one_suffices && best && !together.empty()) {
    advice.push_back(advice_of(joined(together), planned, *best));
  }
}

}  // namespace

std::vector<Advice> advice_for(const Request& request, const Plan& planned) {
  std::vector<Advice> advice;
  if (!planned.fits_vram.value_or(true)) {
    make_it_fit(request, planned, that_save_vram(planned.job), advice);
  }
  if (!planned.fits_ram.value_or(true)) {
    make_it_fit(request, planned, that_save_ram(planned.job), advice);
  }
  if (planned.fits()) {
    for (const Candidate& candidate : that_gain_speed(planned)) {
      const auto gains = [&](const Plan& changed) {
        return shorter(changed, planned) && changed.fits_ram.value_or(true);
      };
      const auto changed = planned_with(request, planned, {candidate}, {nullptr, gains, true});
      if (changed && changed->fits() && gains(*changed)) {
        advice.push_back(advice_of(candidate, planned, *changed));
      }
    }
  }
  // What fits first, then by the length of the step.
  std::stable_sort(advice.begin(), advice.end(), [](const Advice& a, const Advice& b) {
    if (a.fits != b.fits) return a.fits;
    return a.step && b.step && a.step->value() < b.step->value();
  });
  if (advice.size() > kMostAdvice) advice.resize(kMostAdvice);
  return advice;
}

}  // namespace steelyard::plan
