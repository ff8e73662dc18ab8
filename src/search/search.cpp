// Every legal layout: paces first, then the memory of those that could win.
#include "search/search.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <numeric>

#include "base/format.h"
#include "base/parallel.h"
#include "search/space.h"
#include "search/words.h"

namespace steelyard::search {

namespace {

using facts::FoundLayout;
using facts::LostLayout;
using facts::Plan;
using facts::SearchedPlace;

constexpr std::size_t kMostLost = 4;      // that are told, on each side of the best
constexpr std::size_t kMostTried = 64;    // behind the best, in search of such that fit too
constexpr std::size_t kMostLacking = 48;  // that are planned in full where nothing fits

// A layout whose pace is known.
struct Candidate {
  std::int64_t number = 0;
  Seconds step;
  std::int64_t ram_gib = 0;  // of a node, rounded up
};

std::int64_t whole_gib(Bytes bytes) {
  return ceil_divide(bytes.value(), std::int64_t{1} << 30);
}

class PlaceSearch {
 public:
  PlaceSearch(const SearchQuestion& question, const Place& place, const Planner& planner,
              std::int64_t batch)
      : question_(question),
        planner_(planner),
        space_(moved(question, place), place.nodes * gpus_of(question, place),
               gpus_of(question, place), batch, question.free) {
    searched_.machine = place.name;
    searched_.nodes = place.nodes;
    searched_.gpus = gpus_of(question, place);
  }

  [[nodiscard]] std::int64_t size() const { return space_.size(); }
  [[nodiscard]] std::vector<std::string> keys() const { return space_.keys(); }

  // Of each candidate the pace; `tick` is called after each layout, false stops.
  void measure(const std::function<bool()>& tick);
  void weigh(const std::function<bool()>& tick);
  [[nodiscard]] SearchedPlace take() { return std::move(searched_); }

 private:
  [[nodiscard]] static std::int64_t gpus_of(const SearchQuestion& question, const Place& place) {
    if (question.job->machine.gpus) return *question.job->machine.gpus;  // given: fixed
    return place.machine.kind != "bare-gpu" ? place.machine.gpus : 1;
  }
  [[nodiscard]] static facts::Job moved(const SearchQuestion& question, const Place& place) {
    facts::Job job = *question.job;
    const facts::MachineKeys old = job.machine;
    job.machine = {};
    (place.machine.kind == "bare-gpu" ? job.machine.gpu : job.machine.name) = place.name;
    job.machine.nodes = place.nodes;
    job.machine.gpus = gpus_of(question, place);
    const bool same = old.name == job.machine.name && old.gpu == job.machine.gpu;
    if (same) {  // what the job adds to its own machine
      job.machine = old;
      job.machine.nodes = place.nodes;
      job.machine.gpus = gpus_of(question, place);
    }
    return job;
  }

  [[nodiscard]] std::optional<Plan> planned(std::int64_t number, Depth depth) const {
    facts::Job job;
    facts::KeySettings set;
    if (!space_.layout(number, job, set)) return std::nullopt;
    Result<Plan> plan = planner_(job, depth);
    if (!plan) return std::nullopt;
    return std::move(*plan);
  }
  [[nodiscard]] facts::KeySettings settings(std::int64_t number) const {
    facts::Job job;
    facts::KeySettings set;
    static_cast<void>(space_.layout(number, job, set));
    return set;
  }
  [[nodiscard]] FoundLayout found(std::int64_t number) const;
  void tell_the_slower(std::size_t best);
  void tell_what_lacks_least();

  const SearchQuestion& question_;
  const Planner& planner_;
  Space space_;
  std::vector<Candidate> candidates_;  // by step, then by number
  SearchedPlace searched_;
};

void PlaceSearch::measure(const std::function<bool()>& tick) {
  std::vector<std::optional<Candidate>> all(static_cast<std::size_t>(space_.size()));
  std::atomic<std::int64_t> illegal = 0, done = 0;
  std::atomic<bool> stopped = false;
  std::mutex first;
  for_each_side_by_side(all.size(), [&](std::size_t i) {
    if (stopped) return;
    const auto number = static_cast<std::int64_t>(i);
    facts::Job job;
    facts::KeySettings set;
    if (space_.layout(number, job, set)) {
      const Result<Plan> plan = planner_(job, Depth::without_vram);
      if (!plan) {
        ++illegal;
        const std::scoped_lock lock(first);
        if (searched_.refused.empty()) searched_.refused = one_line(plan.error());
      } else if (plan->pace.step && plan->fits_ram.value_or(true)) {
        all[i] = Candidate{number, *plan->pace.step, whole_gib(plan->ram.peak)};
        ++done;
      } else {
        ++done;
      }
    }
    if (!tick()) stopped = true;
  });
  for (const auto& candidate : all) {
    if (candidate) candidates_.push_back(*candidate);
  }
  std::stable_sort(candidates_.begin(), candidates_.end(),
                   [](const Candidate& a, const Candidate& b) { return a.step < b.step; });
  searched_.layouts = done;
  searched_.illegal = illegal;
  if (done > 0) searched_.refused.clear();
}

FoundLayout PlaceSearch::found(std::int64_t number) const {
  FoundLayout layout;
  layout.set = settings(number);
  layout.plan = planned(number, Depth::full).value_or(Plan{});
  const Plan& plan = layout.plan;
  if (!plan.pace.step) return layout;
  const double seconds = plan.pace.step->value();
  constexpr double kSecondsPerHour = 3600.0;
  if (plan.cost) layout.cost_per_step = plan.cost->per_hour * seconds / kSecondsPerHour;
  if (plan.machine.gpu.power_watts) {
    const auto gpus = static_cast<double>(searched_.nodes * searched_.gpus);
    layout.joules_per_step = *plan.machine.gpu.power_watts * gpus * seconds;
  }
  return layout;
}

// In the order of the step: the first that fits is the fastest; a slower one is on the front only
// where it needs less RAM than all before it.
void PlaceSearch::weigh(const std::function<bool()>& tick) {
  std::int64_t least_ram = std::numeric_limits<std::int64_t>::max();
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    const Candidate& candidate = candidates_[i];
    if (candidate.ram_gib >= least_ram) continue;
    const std::optional<Plan> plan = planned(candidate.number, Depth::only_if_fits);
    if (plan && plan->fits()) {
      searched_.found.push_back(found(candidate.number));
      least_ram = candidate.ram_gib;
      if (!best) best = i;
    } else if (!best && searched_.lost.size() < kMostLost) {
      const std::optional<Plan> full = planned(candidate.number, Depth::full);
      LostLayout lost{settings(candidate.number), candidate.step, "does not fit"};
      if (full && full->vram.capacity) {
        lost.why = fmt::format("does not fit: each GPU needs {} of {}",
                               to_text(full->vram.fullest.peak_device_used),
                               to_text(*full->vram.capacity));
      }
      searched_.lost.push_back(std::move(lost));
    }
    if (!tick()) break;
  }
  if (best) {
    tell_the_slower(*best);
  } else {
    tell_what_lacks_least();
  }
}

// What grew most between two steps, in words.
std::string what_slows(const facts::PaceBreakdown& fast, const facts::PaceBreakdown& slow) {
  const std::array<std::pair<const char*, Seconds facts::PaceBreakdown::*>, 8> parts = {{
      {"compute", &facts::PaceBreakdown::compute},
      {"memory-bound work", &facts::PaceBreakdown::memory_bound},
      {"exposed communication", &facts::PaceBreakdown::exposed_communication},
      {"bubbles", &facts::PaceBreakdown::bubble},
      {"the optimizer", &facts::PaceBreakdown::optimizer},
      {"offload", &facts::PaceBreakdown::offload},
      {"waiting for data", &facts::PaceBreakdown::data_stall},
      {"checkpoints", &facts::PaceBreakdown::checkpoint},
  }};
  const auto* most = &parts[0];
  for (const auto& part : parts) {
    const auto grown = [&](const auto& of) { return slow.*of.second - fast.*of.second; };
    if (grown(part) > grown(*most)) most = &part;
  }
  return fmt::format("{} more of {}", to_text(slow.*most->second - fast.*most->second),
                     most->first);
}

// Those behind the best that fit too.
void PlaceSearch::tell_the_slower(std::size_t best) {
  const Plan& winner = searched_.found.front().plan;
  const std::size_t end = std::min(candidates_.size(), best + 1 + kMostTried);
  std::size_t told = 0;
  for (std::size_t i = best + 1; i < end && told < kMostLost; ++i) {
    const std::optional<Plan> plan = planned(candidates_[i].number, Depth::only_if_fits);
    if (!plan || !plan->fits() || !plan->pace.step) continue;
    ++told;
    const Ratio slower(candidates_[i].step.value() / winner.pace.step->value() - 1.0);
    searched_.lost.push_back(
        {settings(candidates_[i].number), candidates_[i].step,
         fmt::format("fits, {} slower: {}", percent(slower),
                     what_slows(winner.pace.breakdown, plan->pace.breakdown))});
  }
}

// Where nothing fits: of some layouts, taken evenly from the fastest to the slowest, the one that
// lacks least. Not the least of all: that would need the memory of every layout.
void PlaceSearch::tell_what_lacks_least() {
  std::vector<std::pair<Bytes, LostLayout>> lacking;
  const std::size_t step = std::max<std::size_t>(1, candidates_.size() / kMostLacking);
  for (std::size_t i = 0; i < candidates_.size(); i += step) {
    const std::optional<Plan> plan = planned(candidates_[i].number, Depth::full);
    if (!plan || !plan->vram.capacity) continue;
    const Bytes needed = plan->vram.fullest.peak_device_used;
    lacking.emplace_back(
        needed, LostLayout{settings(candidates_[i].number), candidates_[i].step,
                           fmt::format("does not fit: each GPU needs {} of {}", to_text(needed),
                                       to_text(*plan->vram.capacity))});
  }
  std::stable_sort(lacking.begin(), lacking.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  if (lacking.empty()) return;
  searched_.lost = {std::move(lacking.front().second)};
}

double score(const FoundLayout& layout, facts::SearchGoal goal) {
  const double step = layout.plan.pace.step ? layout.plan.pace.step->value() : 1e300;
  const auto gpus =
      static_cast<double>(layout.plan.job.machine.nodes * layout.plan.job.machine.gpus.value_or(1));
  switch (goal) {
    case facts::SearchGoal::step: return step;
    case facts::SearchGoal::cost: return layout.cost_per_step.value_or(1e300);
    case facts::SearchGoal::gpus: return gpus;
    case facts::SearchGoal::energy: return layout.joules_per_step.value_or(1e300);
  }
  return step;
}

// At least as good in everything and better in something. An unknown price is worse than any.
bool dominates(const FoundLayout& a, const FoundLayout& b) {
  const auto figures = [](const FoundLayout& layout) {
    const auto nodes = static_cast<double>(layout.plan.job.machine.nodes);
    return std::array{score(layout, facts::SearchGoal::step),
                      score(layout, facts::SearchGoal::cost),
                      score(layout, facts::SearchGoal::gpus),
                      nodes * static_cast<double>(whole_gib(layout.plan.ram.peak))};
  };
  const auto of_a = figures(a), of_b = figures(b);
  bool better = false;
  for (std::size_t i = 0; i < of_a.size(); ++i) {
    if (of_a[i] > of_b[i]) return false;
    better = better || of_a[i] < of_b[i];
  }
  return better;
}

void mark_front(std::vector<SearchedPlace>& places) {
  std::vector<FoundLayout*> all;
  for (SearchedPlace& place : places) {
    for (FoundLayout& layout : place.found) all.push_back(&layout);
  }
  for (FoundLayout* layout : all) {
    layout->on_front = std::none_of(all.begin(), all.end(), [&](const FoundLayout* other) {
      return other != layout && dominates(*other, *layout);
    });
  }
}

}  // namespace

facts::SearchResult search(const SearchQuestion& question, const Planner& planner) {
  facts::SearchResult result;
  result.job = question.planned->job.name;
  result.goal = question.goal;
  result.global_batch = question.planned->job.train.global_batch.value_or(1);
  std::vector<PlaceSearch> searches;
  std::int64_t all = 0;
  for (const Place& place : question.places) {
    searches.emplace_back(question, place, planner, result.global_batch);
    all += searches.back().size();
    for (const std::string& key : searches.back().keys()) {
      if (std::find(result.free.begin(), result.free.end(), key) == result.free.end()) {
        result.free.push_back(key);
      }
    }
  }
  std::mutex one;
  std::int64_t done = 0;
  bool goes_on = true;
  const auto tick = [&](std::int64_t more) {
    const std::scoped_lock lock(one);
    done += more;
    if (goes_on && question.progress) goes_on = question.progress(done, all);
    return goes_on;
  };
  for (PlaceSearch& search : searches) {
    search.measure([&] { return tick(1); });
    search.weigh([&] { return tick(0); });
    result.places.push_back(search.take());
    if (!goes_on) break;
  }
  result.interrupted = !goes_on;
  mark_front(result.places);
  std::stable_sort(result.places.begin(), result.places.end(),
                   [&](const SearchedPlace& a, const SearchedPlace& b) {
                     const double of_a = a.found.empty() ? 1e301 : score(a.found[0], result.goal);
                     const double of_b = b.found.empty() ? 1e301 : score(b.found[0], result.goal);
                     return of_a < of_b;
                   });
  return result;
}

}  // namespace steelyard::search
