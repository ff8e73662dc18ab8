#include "share/moving.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <tuple>

#include "base/format.h"
#include "share/memory.h"

namespace steelyard::share {
namespace {

using facts::PlacedJob;
using facts::SharePlan;
using facts::ShareVerdict;

std::string name_of(const PlacedJob& job) {
  return job.copies > 1 ? fmt::format("{} (copy {})", job.name, job.copy) : job.name;
}

bool is_vram_short(const PlacedJob& job) {
  return job.alone && job.alone->fits_vram == false;
}

bool is_hopeless(const PlacedJob& job) {
  const bool ram_short = job.alone && job.alone->fits_ram == false;
  return !job.refused.empty() || is_vram_short(job) || ram_short;
}

class Mover {
 public:
  Mover(const SharePlan& plan, const Fit& fit, const HasPlaces& has_places)
      : plan_(plan), fit_(fit), has_places_(has_places) {}

  std::vector<std::size_t> run() {
    std::vector<std::size_t> stay;
    for (std::size_t i = 0; i < plan_.jobs.size(); ++i) {
      (is_hopeless(plan_.jobs[i]) ? always_ : stay).push_back(i);
    }
    std::sort(stay.begin(), stay.end(),
              [&](std::size_t a, std::size_t b) { return size_of(a) < size_of(b); });
    for (std::size_t many = 0; many <= stay.size(); ++many) {
      std::vector<std::size_t> moved;
      tried_.clear();
      if (pick(stay, 0, many, moved)) {
        std::vector<std::size_t> all = always_;
        all.insert(all.end(), found_.begin(), found_.end());
        std::sort(all.begin(), all.end());
        return all;
      }
    }
    return always_;
  }

 private:
  using Size = std::tuple<std::int64_t, Bytes, std::string_view, std::int64_t>;

  [[nodiscard]] Size size_of(std::size_t i) const {
    const PlacedJob& job = plan_.jobs[i];
    return {job.gpus, job.alone->ram.peak, job.file, -job.copy};
  }

  // Sets of `many` in the order of their sizes; of copies the last ones.
  bool pick(const std::vector<std::size_t>& stay, std::size_t from, std::size_t many,
            std::vector<std::size_t>& moved) {
    if (moved.size() == many) return rest_fits(stay, moved);
    for (std::size_t i = from; i + (many - moved.size()) <= stay.size(); ++i) {
      moved.push_back(stay[i]);
      if (pick(stay, i + 1, many, moved)) return true;
      moved.pop_back();
    }
    return false;
  }

  bool rest_fits(const std::vector<std::size_t>& stay, const std::vector<std::size_t>& moved) {
    constexpr std::size_t kMostTried = 20'000;
    std::multiset<std::pair<std::string, std::int64_t>> without;
    std::vector<std::size_t> rest;
    std::vector<PlacedJob> jobs;
    for (const std::size_t i : stay) {
      const PlacedJob& job = plan_.jobs[i];
      if (std::ranges::find(moved, i) != moved.end()) {
        without.emplace(job.file, job.gpus);
        continue;
      }
      rest.push_back(i);
      jobs.push_back(job);
    }
    if (tried_.size() >= kMostTried || !tried_.insert(without).second) return false;
    const facts::SharedRam ram = shared_ram(jobs, fit_.capacity);
    if (fit_.capacity && ram.worst > *fit_.capacity) return false;
    if (!has_places_(rest)) return false;
    found_ = moved;
    return true;
  }

  const SharePlan& plan_;
  const Fit& fit_;
  const HasPlaces& has_places_;
  std::vector<std::size_t> always_, found_;
  std::set<std::multiset<std::pair<std::string, std::int64_t>>> tried_;
};

void say_alone(const SharePlan& plan, Judgement& judgement) {
  for (const PlacedJob& job : plan.jobs) {
    if (!job.refused.empty()) {
      judgement.verdict = ShareVerdict::refused;
      judgement.sentences.push_back(
          fmt::format("{} cannot run here: {}", name_of(job), job.refused));
    } else if (is_vram_short(job)) {
      if (judgement.verdict != ShareVerdict::refused) judgement.verdict = ShareVerdict::vram_short;
      judgement.sentences.push_back(fmt::format(
          "{} does not fit even alone: each GPU lacks {}", name_of(job),
          to_text(job.alone->vram.fullest.peak_device_used - *job.alone->vram.capacity)));
    }
  }
}

void say_places(const SharePlan& plan, const Fit& fit, Judgement& judgement) {
  std::int64_t asked = 0;
  for (const PlacedJob& job : plan.jobs) asked += job.gpus;
  judgement.verdict = ShareVerdict::gpus_short;
  const bool shares = fit.room->time_slice || fit.room->mig != nullptr;
  judgement.sentences.push_back(
      fmt::format("the jobs ask for {} GPUs, the machine has {}{}", asked, plan.gpus,
                  shares ? ", and what may share a card does not fit on it together"
                         : "; --time-slice or --mig let jobs share a card"));
}

void say_memory(const SharePlan& plan, Judgement& judgement) {
  const facts::SharedRam& ram = plan.ram;
  const bool staggered = ram.one_by_one <= *ram.capacity;
  if (judgement.verdict == ShareVerdict::fits) {
    judgement.verdict = staggered ? ShareVerdict::one_by_one : ShareVerdict::ram_short;
  }
  for (std::size_t phase = 0; phase < facts::kRamPhases; ++phase) {
    if (ram.phases[phase] <= *ram.capacity) continue;
    judgement.sentences.push_back(
        fmt::format("all in the {} phase at the same moment: the host lacks {}",
                    facts::name_of(static_cast<facts::RamPhase>(phase)),
                    to_text(ram.phases[phase] - *ram.capacity)));
  }
  judgement.sentences.push_back(fmt::format("each at its fullest moment: {} needed, {} there",
                                            to_text(ram.worst), to_text(*ram.capacity)));
  if (!staggered) return;
  judgement.sentences.push_back(
      fmt::format("it suffices as long as never two of them start, load or save at the same moment "
                  "({})",
                  to_text(ram.one_by_one)));
}

}  // namespace

Judgement judged(const SharePlan& plan, const Fit& fit, const HasPlaces& has_places) {
  Judgement judgement;
  say_alone(plan, judgement);
  std::vector<std::size_t> able;
  for (std::size_t i = 0; i < plan.jobs.size(); ++i) {
    if (!is_hopeless(plan.jobs[i])) able.push_back(i);
  }
  if (judgement.verdict == ShareVerdict::fits && !has_places(able)) {
    say_places(plan, fit, judgement);
  }
  if (fit.capacity && plan.ram.worst > *fit.capacity) say_memory(plan, judgement);
  if (judgement.verdict != ShareVerdict::fits) judgement.move = Mover(plan, fit, has_places).run();
  return judgement;
}

}  // namespace steelyard::share
