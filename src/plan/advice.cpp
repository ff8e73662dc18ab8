#include "plan/advice.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/format.h"
#include "base/parallel.h"
#include "plan/candidates.h"

namespace steelyard::plan {

namespace {

using facts::Advice;
using facts::AdviceEffort;
using facts::Plan;

constexpr std::size_t kMostAdvice = 5;
// Changes that are made together at most.
constexpr std::size_t kMostTogether = 8;
// A job must get better by this share to be worth a line.
constexpr double kWorthwhileGain = 0.02;

// Keys of the host's side leave the GPUs' program as it is.
bool of_the_host(const Candidate& candidate) {
  if (candidate.machine) return false;
  return std::ranges::all_of(candidate.set, [](const auto& change) {
    const std::string& key = change.first;
    return key.starts_with("checkpoint.") || key.starts_with("data.") ||
           key.starts_with("machine.numa_") || key == "offload.pin_memory";
  });
}

// Samples per second; per money where both plans know what theirs costs.
std::optional<Ratio> gain_of(const Plan& before, const Plan& after) {
  if (!before.pace.samples || !after.pace.samples || before.pace.samples->value() <= 0.0) {
    return std::nullopt;
  }
  double gain = (*after.pace.samples / *before.pace.samples).value();
  if (before.cost && after.cost && before.cost->currency == after.cost->currency &&
      after.cost->per_hour > 0.0) {
    gain *= before.cost->per_hour / after.cost->per_hour;
  }
  return Ratio(gain - 1.0);
}

// What a person has to spend on it, in steps of the same size: looking after results, data or code
// is as much again as setting a key, moving to another machine as much again as that.
double weight_of(AdviceEffort effort) {
  switch (effort) {
    case AdviceEffort::setting: return 1.0;
    case AdviceEffort::care: return 2.0;
    case AdviceEffort::machine: return 4.0;
  }
  return 1.0;
}

// A job that fits is worth its gain, one that did not what it does at all.
double score_of(const Advice& advice, bool fitted_before) {
  const double gain = advice.gain ? advice.gain->value() : 0.0;
  return (fitted_before ? gain : 1.0 + gain) / weight_of(advice.effort);
}

Candidate joined(const std::vector<Candidate>& changes) {
  Candidate all;
  for (const Candidate& change : changes) {
    all.what += (all.what.empty() ? "" : "; ") + change.what;
    all.effort = std::max(all.effort, change.effort);
    for (const auto& setting : change.set) {
      std::erase_if(all.set, [&](const auto& old) { return old.first == setting.first; });
      all.set.push_back(setting);
    }
  }
  return all;
}

// Only what changes, and only differences that the reader would see.
std::string effects_of(const Plan& before, const Plan& after) {
  std::vector<std::string> effects;
  const auto compare = [&](const char* what, const std::string& now, const std::string& then) {
    if (now != then) effects.push_back(fmt::format("{} {} instead of {}", what, now, then));
  };
  compare("each GPU", to_text(after.vram.fullest.peak_device_used),
          to_text(before.vram.fullest.peak_device_used));
  if (before.pace.step && after.pace.step) {
    compare("step", to_text(*after.pace.step), to_text(*before.pace.step));
  }
  compare("host", to_text(after.ram.peak), to_text(before.ram.peak));
  if (before.cost && after.cost && before.cost->currency == after.cost->currency) {
    const auto price = [](const Plan& plan) {
      return fmt::format("{:.2f} {} per hour", plan.cost->per_hour, plan.cost->currency);
    };
    compare("for", price(after), price(before));
  }
  return effects.empty() ? std::string() : fmt::format(": {}", fmt::join(effects, ", "));
}

Advice advice_of(const Candidate& candidate, const Plan& before, const Plan& after) {
  Advice advice;
  advice.set = candidate.set;
  advice.fits = after.fits();
  advice.vram_peak = after.vram.fullest.peak_device_used;
  advice.ram_peak = after.ram.peak;
  advice.step = after.pace.step;
  if (after.cost) {
    advice.cost_per_hour = after.cost->per_hour;
    advice.cost_per_million_samples = after.cost->per_million_samples;
  }
  advice.gain = gain_of(before, after);
  advice.effort = candidate.effort;
  advice.sentence = candidate.what + effects_of(before, after);
  return advice;
}

// Plans of the same job with changes.
class Trials {
 public:
  Trials(const Request& request, const Plan& planned, std::shared_ptr<const Prepared> prepared)
      : request_(request), planned_(planned), prepared_(std::move(prepared)) {
    request_.timeline = false;
    request_.advice = false;
  }

  // Nothing where the combination is impossible: that is no advice.
  [[nodiscard]] std::optional<Plan> with(const std::vector<Candidate>& changes,
                                         Shortcuts shortcuts = {}) const {
    Request changed = request_;
    for (const Candidate& change : changes) {
      change.apply(changed.job);
      if (change.machine) changed.machine = *change.machine;
    }
    if (std::ranges::all_of(changes, of_the_host)) {
      shortcuts.alike = &planned_;
      shortcuts.prepared = prepared_;
    }
    Result<Plan> plan = figures(changed, shortcuts);
    if (!plan) return std::nullopt;
    return std::move(*plan);
  }

  [[nodiscard]] const Request& request() const { return request_; }

 private:
  Request request_;
  const Plan& planned_;
  std::shared_ptr<const Prepared> prepared_;
};

bool exceeds_vram(const Plan& plan) {
  return !plan.fits_vram.value_or(true);
}

// Less of what is short; a GPU that holds it comes first.
std::vector<Candidate> savers(const Plan& plan) {
  if (exceeds_vram(plan)) return that_save_vram(plan);
  return plan.fits_ram.value_or(true) ? std::vector<Candidate>() : that_save_ram(plan);
}

// Whether these changes leave so much at the fullest moment that they cannot suffice: such a
// combination is not planned.
bool cannot_suffice(const Plan& planned, const Remains& remains) {
  return exceeds_vram(planned) && planned.vram.capacity &&
         remains.of(planned.vram.fullest.by_category) > *planned.vram.capacity;
}

Remains of_all(const std::vector<Candidate>& changes) {
  Remains all;
  for (const Candidate& change : changes) all = all.with(change.remains);
  return all;
}

// A later change of the same keys replaces an earlier one.
void add(std::vector<Candidate>& together, Candidate next) {
  std::erase_if(together, [&](const Candidate& old) {
    return std::ranges::all_of(old.set, [&](const auto& setting) {
      return std::ranges::any_of(next.set,
                                 [&](const auto& mine) { return mine.first == setting.first; });
    });
  });
  together.push_back(std::move(next));
}

// By more than what the allocator's fragments come to by chance.
bool less(Bytes then, Bytes now) {
  constexpr double kSameByChance = 0.99;
  return now > Bytes() && (then / now).value() < kSameByChance;
}

// Changes one after the other until the job fits, in the order of their price.
void fit_together(const Trials& trials, const Plan& planned, std::vector<Advice>& advice) {
  std::vector<Candidate> together;
  std::set<std::string> used;
  std::optional<Plan> best;
  bool stale = false;  // changes were added since the last plan
  while (together.size() < kMostTogether && !(best && best->fits())) {
    const std::vector<Candidate> all = savers(best ? *best : planned);
    const auto next = std::ranges::find_if(
        all, [&](const Candidate& candidate) { return !used.contains(candidate.what); });
    if (next == all.end()) break;
    used.insert(next->what);
    std::vector<Candidate> more = together;
    add(more, *next);
    if (cannot_suffice(planned, of_all(more))) {
      together = std::move(more);
      stale = true;
      continue;
    }
    std::optional<Plan> plan = trials.with(more);
    if (!plan) continue;
    const Plan& before = best ? *best : planned;
    const bool helps =
        less(plan->vram.fullest.peak_device_used, before.vram.fullest.peak_device_used) ||
        less(plan->ram.peak, before.ram.peak);
    if (!helps && !plan->fits()) continue;
    together = std::move(more);
    best = std::move(plan);
    stale = false;
  }
  while (stale && !together.empty()) {
    best = trials.with(together);
    stale = !best.has_value();
    if (stale) together.pop_back();
  }
  if (best && !together.empty()) advice.push_back(advice_of(joined(together), planned, *best));
}

// The plan with each change alone, made side by side; nothing where it is impossible or does not
// fit.
std::vector<std::optional<Plan>> each_alone(const Trials& trials,
                                            const std::vector<Candidate>& candidates,
                                            const Shortcuts& shortcuts) {
  std::vector<std::optional<Plan>> plans(candidates.size());
  for_each_side_by_side(candidates.size(), [&](std::size_t i) {
    std::optional<Plan> plan = trials.with({candidates[i]}, shortcuts);
    if (plan && plan->fits()) plans[i] = std::move(plan);
  });
  return plans;
}

// Each change alone; and, when none suffices, several together.
void make_it_fit(const Trials& trials, const Plan& planned, std::vector<Advice>& advice) {
  std::vector<Candidate> alone = savers(planned);
  for (Candidate& machine : other_machines(trials.request(), planned)) {
    alone.push_back(std::move(machine));
  }
  std::erase_if(alone, [&](const Candidate& candidate) {
    return !candidate.machine && cannot_suffice(planned, candidate.remains);
  });
  Shortcuts shortcuts;
  shortcuts.only_if_fits = true;
  const std::vector<std::optional<Plan>> plans = each_alone(trials, alone, shortcuts);
  bool one_suffices = false;
  for (std::size_t i = 0; i < alone.size(); ++i) {
    if (!plans[i]) continue;
    one_suffices = one_suffices || !alone[i].machine;
    advice.push_back(advice_of(alone[i], planned, *plans[i]));
  }
  if (!one_suffices) fit_together(trials, planned, advice);
}

void make_it_better(const Trials& trials, const Plan& planned, std::vector<Advice>& advice) {
  const auto gains = [&](const Plan& changed) {
    const auto gain = gain_of(planned, changed);
    return gain && gain->value() > kWorthwhileGain && changed.fits_ram.value_or(true);
  };
  std::vector<Candidate> all = that_feed_faster(planned);
  for (Candidate& candidate : that_save_faster(planned)) all.push_back(std::move(candidate));
  for (Candidate& candidate : that_gain_speed(planned)) all.push_back(std::move(candidate));
  for (Candidate& machine : other_machines(trials.request(), planned)) {
    all.push_back(std::move(machine));
  }
  Shortcuts shortcuts;
  shortcuts.is_promising = gains;
  shortcuts.only_if_fits = true;
  const std::vector<std::optional<Plan>> plans = each_alone(trials, all, shortcuts);
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (plans[i] && gains(*plans[i])) advice.push_back(advice_of(all[i], planned, *plans[i]));
  }
}

}  // namespace

std::vector<Advice> advice_for(const Request& request, const Plan& planned,
                               const std::shared_ptr<const Prepared>& prepared) {
  std::vector<Advice> advice;
  const Trials trials(request, planned, prepared);
  if (planned.fits()) {
    make_it_better(trials, planned, advice);
  } else {
    make_it_fit(trials, planned, advice);
  }
  std::ranges::stable_sort(advice, [&](const Advice& a, const Advice& b) {
    if (a.fits != b.fits) return a.fits;
    return score_of(a, planned.fits()) > score_of(b, planned.fits());
  });
  if (advice.size() > kMostAdvice) advice.resize(kMostAdvice);
  return advice;
}

}  // namespace steelyard::plan
