// On every place the layouts in the order of their step, and the memory of those that could win.
#include "search/search.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>

#include "base/format.h"
#include "search/ordered_layouts.h"
#include "search/space.h"

namespace steelyard::search {

namespace {

using facts::FoundLayout;
using facts::LostLayout;
using facts::Plan;
using facts::SearchedPlace;

constexpr std::size_t kMostLost = 4;      // that are told, on each side of the best
constexpr std::size_t kMostTried = 64;    // behind the best, in search of such that fit too
constexpr std::size_t kMostLate = 16;     // after a stop, until something fits
constexpr std::size_t kMostLacking = 48;  // that are planned in full where nothing fits

class PlaceSearch {
 public:
  PlaceSearch(const SearchQuestion& question, const Place& place, const Planner& planner,
              std::int64_t batch)
      : question_(question),
        place_(place),
        planner_(planner),
        space_(moved(question, place), place.nodes * gpus_of(question, place),
               gpus_of(question, place), batch,
               {.keys = question.free,
                .shardings = question.shardings,
                .experts = question.planned->model.active_parameters <
                           question.planned->model.parameters}) {
    searched_.machine = place.name;
    searched_.nodes = place.nodes;
    searched_.gpus = gpus_of(question, place);
  }

  [[nodiscard]] std::int64_t size() const { return space_.size(); }
  [[nodiscard]] std::vector<std::string> keys() const { return space_.keys(); }

  void run(const OrderedLayouts::Tick& tick);
  [[nodiscard]] SearchedPlace take() { return std::move(searched_); }
  [[nodiscard]] const Counts& counts() const { return counts_; }

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

  [[nodiscard]] Room room() const;
  [[nodiscard]] bool fits(const Plan& plan) const {
    const auto& most = question_.within.vram_gib;
    return plan.fits() && (!most || plan.vram.fullest.peak_device_used.real() <= *most * kGib);
  }
  [[nodiscard]] std::optional<Plan> planned(std::int64_t number, Depth depth) const {
    facts::Job job = space_.job();
    if (!space_.apply(number, job)) return std::nullopt;
    Result<Plan> plan = planner_(job, depth);
    if (!plan) return std::nullopt;
    return std::move(*plan);
  }
  [[nodiscard]] FoundLayout found(std::int64_t number, Plan plan) const;
  // False: a bound was wrong.
  [[nodiscard]] bool seek(OrderedLayouts& layouts, const OrderedLayouts::Tick& tick);
  void tell_too_large(const Candidate& candidate);
  void tell_slower(const Candidate& candidate, const Plan& plan);
  void tell_what_lacks_least(const OrderedLayouts& layouts);

  static constexpr double kGib = 1024.0 * 1024.0 * 1024.0;

  const SearchQuestion& question_;
  const Place& place_;
  const Planner& planner_;
  Space space_;
  SearchedPlace searched_;
  Counts counts_;
};

// What the job says of its machine may be other than what the machine has: the planner knows.
Room PlaceSearch::room() const {
  Room room;
  const Within& within = question_.within;
  const bool own = space_.job().machine.ram_gib || space_.job().machine.vram_gib;
  if (!own) {
    room.vram = place_.machine.gpu.memory.value;
    room.ram = place_.machine.host.memory.value;
  }
  const auto narrow = [](std::optional<Bytes>& bytes, const std::optional<double>& gib) {
    if (!gib) return;
    const Bytes most(static_cast<std::int64_t>(*gib * kGib) + 1);  // rounded up
    bytes = bytes ? std::min(*bytes, most) : most;
  };
  narrow(room.ram, within.ram_gib);
  narrow(room.vram, within.vram_gib);
  if (own) {
    narrow(room.ram, space_.job().machine.ram_gib);
    narrow(room.vram, space_.job().machine.vram_gib);
  }
  if (within.step) room.step = Seconds(*within.step);
  return room;
}

void PlaceSearch::run(const OrderedLayouts::Tick& tick) {
  Bounds bounds = question_.bounds ? question_.bounds(space_.job()) : Bounds();
  for (int attempt = 0; attempt < 2; ++attempt) {
    OrderedLayouts layouts(space_, planner_, attempt == 0 ? bounds : Bounds(), question_.crew,
                           room());
    layouts.bound(tick);
    searched_.found.clear();
    searched_.lost.clear();
    const bool sound = seek(layouts, tick);
    searched_.layouts = layouts.legal();
    counts_ = {.planned = layouts.legal() - layouts.ruled_out(),
               .ruled_out = layouts.ruled_out(),
               .refused = layouts.refused()};
    searched_.illegal = layouts.refused();
    searched_.refused = layouts.legal() > 0 ? std::string() : layouts.why_refused();
    if (sound) return;  // else all are planned
  }
}

// A plan that fits is whole: only where memory does not suffice it ends early.
FoundLayout PlaceSearch::found(std::int64_t number, Plan whole) const {
  FoundLayout layout;
  layout.set = space_.settings(number);
  layout.plan = std::move(whole);
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
bool PlaceSearch::seek(OrderedLayouts& layouts, const OrderedLayouts::Tick& tick) {
  std::int64_t least_ram = std::numeric_limits<std::int64_t>::max();
  std::size_t behind = 0, slower = 0, late = 0;
  while (const std::optional<Candidate> next = layouts.next(tick)) {
    const bool wanted = next->ram_gib < least_ram;
    const bool first = searched_.found.empty();
    const bool tells = !first && behind < kMostTried && slower < kMostLost;
    if (!first) ++behind;
    if (wanted || tells) {
      std::optional<Plan> plan = planned(next->number, Depth::only_if_fits);
      const bool fitting = plan && fits(*plan);
      if (fitting && tells && plan->pace.step) {
        ++slower;
        tell_slower(*next, *plan);
      }
      if (fitting && wanted) {
        searched_.found.push_back(found(next->number, std::move(*plan)));
        least_ram = next->ram_gib;
      }
      if (!fitting && first && searched_.lost.size() < kMostLost) tell_too_large(*next);
    }
    if (behind >= kMostTried || slower >= kMostLost) layouts.only_below(least_ram);
    // Stopped: of those planned already some may still be tried for an answer.
    if (!tick(0) && (!searched_.found.empty() || ++late > kMostLate)) break;
  }
  if (searched_.found.empty()) tell_what_lacks_least(layouts);
  return !layouts.bounds_fail();
}

void PlaceSearch::tell_too_large(const Candidate& candidate) {
  const std::optional<Plan> full = planned(candidate.number, Depth::full);
  LostLayout lost{space_.settings(candidate.number), candidate.step, "does not fit"};
  if (full && full->vram.capacity) {
    lost.why =
        fmt::format("does not fit: each GPU needs {} of {}",
                    to_text(full->vram.fullest.peak_device_used), to_text(*full->vram.capacity));
  }
  searched_.lost.push_back(std::move(lost));
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

// One behind the best that fits too.
void PlaceSearch::tell_slower(const Candidate& candidate, const Plan& plan) {
  const Plan& winner = searched_.found.front().plan;
  const Ratio slower(candidate.step.value() / winner.pace.step->value() - 1.0);
  searched_.lost.push_back({space_.settings(candidate.number), candidate.step,
                            fmt::format("fits, {} slower: {}", percent(slower),
                                        what_slows(winner.pace.breakdown, plan.pace.breakdown))});
}

// Where nothing fits: of some layouts, taken evenly by their bounds, the one that lacks least. Not
// the least of all: that would need the memory of every layout.
void PlaceSearch::tell_what_lacks_least(const OrderedLayouts& layouts) {
  std::optional<std::pair<Bytes, LostLayout>> least;
  for (const std::int64_t number : layouts.some(kMostLacking)) {
    const std::optional<Plan> plan = planned(number, Depth::full);
    if (!plan || !plan->vram.capacity || !plan->pace.step) continue;
    const Bytes needed = plan->vram.fullest.peak_device_used;
    if (least && least->first <= needed) continue;
    least = {needed, LostLayout{space_.settings(number), plan->pace.step,
                                fmt::format("does not fit: each GPU needs {} of {}",
                                            to_text(needed), to_text(*plan->vram.capacity))}};
  }
  if (least) searched_.lost = {std::move(least->second)};
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

namespace {

// A place that what is asked for rules out.
bool is_within(const Place& place, const SearchQuestion& question) {
  const Within& within = question.within;
  const bool bare = place.machine.kind == "bare-gpu";
  const std::int64_t each = question.job->machine.gpus.value_or(bare ? 1 : place.machine.gpus);
  if (within.gpus && place.nodes * each > *within.gpus) return false;
  if (!within.price) return true;
  return place.machine.price &&
         place.machine.price->per_hour * static_cast<double>(place.nodes) <= *within.price;
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
    if (!is_within(place, question)) continue;
    searches.emplace_back(question, place, planner, result.global_batch);
    all += searches.back().size();
    for (const std::string& key : searches.back().keys()) {
      if (std::find(result.free.begin(), result.free.end(), key) == result.free.end()) {
        result.free.push_back(key);
      }
    }
  }
  std::int64_t done = 0;
  bool goes_on = true;
  const auto tick = [&](std::int64_t more) {
    done += more;
    if (goes_on && question.progress) goes_on = question.progress(done, all);
    if (question.crew != nullptr) {  // one stops, all stop
      const auto stops = question.crew->gathered(goes_on ? "" : "stop");
      goes_on =
          std::all_of(stops.begin(), stops.end(), [](const auto& one) { return one.empty(); });
    }
    return goes_on;
  };
  for (PlaceSearch& search : searches) {
    search.run(tick);
    if (question.counts != nullptr) {
      question.counts->planned += search.counts().planned;
      question.counts->ruled_out += search.counts().ruled_out;
      question.counts->refused += search.counts().refused;
    }
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
