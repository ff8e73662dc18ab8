// On every place the layouts in the order of their step, and the memory of those that could win.
#include "search/search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "search/differences.h"
#include "search/front.h"
#include "search/ordered_layouts.h"
#include "search/space.h"
#include "search/tellings.h"

namespace steelyard::search {

namespace {

using facts::FoundLayout;
using facts::LostLayout;
using facts::Plan;
using facts::SearchedPlace;

constexpr std::size_t kMostTooLarge = 4;  // faster ones that are told
constexpr std::size_t kMostSlower = 4;    // that are told
constexpr std::size_t kMostTried = 256;   // behind the best, in search of such that fit too
constexpr std::size_t kMostLate = 16;     // after a stop, until something fits
constexpr std::size_t kMostLacking = 48;  // that are planned in full where nothing has bounds

class PlaceSearch {
 public:
  PlaceSearch(const SearchQuestion& question, const Place& place, const Planner& planner,
              std::int64_t batch)
      : question_(question),
        place_(place),
        planner_(planner),
        batch_(batch),
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

  [[nodiscard]] static std::int64_t gpus_of(const SearchQuestion& question, const Place& place) {
    if (question.job->machine.gpus) return *question.job->machine.gpus;  // given: fixed
    return place.machine.kind != "bare-gpu" ? place.machine.gpus : 1;
  }
  [[nodiscard]] std::int64_t size() const { return space_.size(); }
  [[nodiscard]] std::vector<std::string> keys() const { return space_.keys(); }

  void run(const OrderedLayouts::Tick& tick);
  [[nodiscard]] SearchedPlace take() { return std::move(searched_); }
  [[nodiscard]] const Counts& counts() const { return counts_; }

 private:
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
    if (job.train.tokens_per_batch && !job.train.micro_batch) {  // it follows from the tokens
      job.train.micro_batch = question.planned->job.train.micro_batch;
      job.origins["train.micro_batch"] = {facts::Origin::fallback, {}};
    }
    return job;
  }

  [[nodiscard]] Room room() const;
  [[nodiscard]] bool fits_gpus(const Plan& plan) const {
    const auto& most = question_.within.vram_gib;
    return plan.fits_vram.value_or(true) &&
           (!most || plan.vram.fullest.peak_device_used.real() <= *most * kGib);
  }
  [[nodiscard]] bool fits(const Plan& plan) const { return plan.fits() && fits_gpus(plan); }
  [[nodiscard]] std::optional<Plan> planned(std::int64_t number, Depth depth) const {
    facts::Job job = space_.job();
    if (!space_.apply(number, job)) return std::nullopt;
    Result<Plan> plan = planner_(job, depth);
    if (!plan) return std::nullopt;
    return std::move(*plan);
  }
  // All that makes the job that layout, on its place.
  [[nodiscard]] facts::KeySettings set_of(std::int64_t number) const {
    facts::Job job = space_.job();
    static_cast<void>(space_.apply(number, job));
    return overlaid(space_.settings(number),
                    differences(*question_.job, job, searched_.nodes * searched_.gpus));
  }
  [[nodiscard]] FoundLayout found(std::int64_t number, Plan plan) const;
  // False, as of the next one: a bound was wrong.
  [[nodiscard]] bool explain_nothing(const OrderedLayouts& layouts,
                                     const OrderedLayouts::Tick& tick);
  void tell_what_would_fit(std::int64_t number);
  // False: a bound was wrong.
  [[nodiscard]] bool seek(OrderedLayouts& layouts, const OrderedLayouts::Tick& tick);
  void tell_too_large(const Candidate& candidate);
  void tell_slower(const Candidate& candidate, const Plan& plan);
  [[nodiscard]] bool tell_what_lacks_least(const OrderedLayouts& layouts);

  static constexpr double kGib = 1024.0 * 1024.0 * 1024.0;

  const SearchQuestion& question_;
  const Place& place_;
  const Planner& planner_;
  std::int64_t batch_;
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
    OrderedLayouts layouts(space_, planner_, question_.siblings, attempt == 0 ? bounds : Bounds(),
                           question_.crew, room());
    layouts.bound(tick);
    searched_.found.clear();
    searched_.lost.clear();
    bool sound = seek(layouts, tick);
    if (sound && searched_.found.empty() && searched_.finished) {
      sound = explain_nothing(layouts, tick);
    }
    searched_.layouts = layouts.legal();
    searched_.ruled_out = layouts.ruled_out();
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
  layout.set = set_of(number);
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
  double told = 0.0;  // the step of the last one that was told; of those that tie, one is
  // Layouts that differ on the host alone are told once, and one on the GPUs.
  std::set<std::int64_t> met, too_large;
  searched_.finished = true;
  while (const std::optional<Candidate> next = layouts.next(tick)) {
    const bool wanted = next->ram_gib < least_ram;
    const bool first = searched_.found.empty();
    const std::int64_t on_gpus = next->number % space_.on_gpus();
    if (too_large.contains(on_gpus)) continue;
    const bool fresh = met.insert(on_gpus).second;
    const bool ties = next->step && slower > 0 && next->step->value() <= told * (1.0 + 1e-6);
    const bool tells =
        !first && fresh && behind < kMostTried && slower < kMostSlower && next->step && !ties;
    if (!first && fresh) ++behind;
    if (wanted || tells) {
      std::optional<Plan> plan = planned(next->number, Depth::only_if_fits);
      const bool fitting = plan && fits(*plan);
      if (plan && !fits_gpus(*plan)) too_large.insert(on_gpus);
      if (fitting && tells) {
        ++slower;
        told = next->step->value();
        tell_slower(*next, *plan);
      }
      if (fitting && wanted) {
        searched_.found.push_back(found(next->number, std::move(*plan)));
        least_ram = next->ram_gib;
      }
      if (!fitting && first && fresh && searched_.lost.size() < kMostTooLarge) {
        tell_too_large(*next);
      }
    }
    if (behind >= kMostTried || slower >= kMostSlower) layouts.only_below(least_ram);
    // Stopped: of those planned already some may still be tried for an answer.
    if (!tick(0) && (!searched_.found.empty() || ++late > kMostLate)) break;
  }
  searched_.finished = tick(0);
  return !layouts.bounds_fail();
}

void PlaceSearch::tell_too_large(const Candidate& candidate) {
  const std::optional<Plan> plan = planned(candidate.number, Depth::until_short);
  searched_.lost.push_back({set_of(candidate.number), candidate.step,
                            plan ? why_not(*plan, question_.within) : "does not fit"});
}

// One behind the best that fits too.
void PlaceSearch::tell_slower(const Candidate& candidate, const Plan& plan) {
  searched_.lost.push_back(
      {set_of(candidate.number), candidate.step, how_slow(searched_.found.front().plan, plan)});
}

// Nothing was found: what is asked for may be the reason, or what there is.
bool PlaceSearch::explain_nothing(const OrderedLayouts& layouts, const OrderedLayouts::Tick& tick) {
  const Within& within = question_.within;
  if (!within.step && !within.ram_gib && !within.vram_gib) {
    return tell_what_lacks_least(layouts);
  }
  SearchQuestion anything = question_;
  anything.within = {};
  PlaceSearch all(anything, place_, planner_, batch_);
  all.run([&tick](std::int64_t) { return tick(0); });
  SearchedPlace there = all.take();
  searched_.finished = there.finished;
  searched_.lost = std::move(there.lost);
  searched_.change = std::move(there.change);
  searched_.change_set = std::move(there.change_set);
  if (there.found.empty()) return true;
  searched_.outside = why_outside(there.found.front().plan, there.found.back().plan, within);
  const FoundLayout& fastest = there.found.front();
  searched_.lost = {{fastest.set, fastest.plan.pace.step, "fits, but is not within it"}};
  return true;
}

// Of those that their bounds put nearest, the one that lacks least. Not the least of all: that
// would need the memory of every layout.
bool PlaceSearch::tell_what_lacks_least(const OrderedLayouts& layouts) {
  const std::vector<Lacking> some = layouts.nearest(kMostLacking);
  std::vector<double> lacks(some.size(), std::numeric_limits<double>::infinity());
  on_all_cores(some.size(), [&](std::size_t i) {
    const std::optional<Plan> plan = planned(some[i].number, Depth::full);
    if (plan) lacks[i] = plan->fits() ? 0.0 : lack_of(*plan);
  });
  const auto least = std::min_element(lacks.begin(), lacks.end());
  if (least == lacks.end() || !std::isfinite(*least)) return true;
  if (*least == 0.0) return false;  // one fits: bounds ruled it out wrongly
  tell_what_would_fit(some[static_cast<std::size_t>(least - lacks.begin())].number);
  return true;
}

// The planner's own advice for that layout: the first change that makes it fit where it is, of keys
// that were not free before others.
void PlaceSearch::tell_what_would_fit(std::int64_t number) {
  const std::optional<Plan> plan = planned(number, Depth::advised);
  if (!plan) return;
  const facts::KeySettings set = set_of(number);
  searched_.lost = {{set, plan->pace.step, why_not(*plan, {})}};
  const std::vector<std::string> free = space_.keys();
  const auto is_free = [&free](const auto& setting) {
    return std::find(free.begin(), free.end(), setting.first) != free.end();
  };
  const facts::Advice* first = nullptr;
  for (const facts::Advice& advice : plan->balance.advice) {
    if (!advice.fits || advice.effort == facts::AdviceEffort::machine) continue;
    if (first == nullptr) first = &advice;
    if (std::none_of(advice.set.begin(), advice.set.end(), is_free)) {
      first = &advice;
      break;
    }
  }
  if (first == nullptr) return;
  for (const auto& [key, value] : first->set) {
    searched_.change += (searched_.change.empty() ? "--set " : " --set ") + key + "=" + value;
  }
  searched_.change_set = overlaid(set, first->set);
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
    if (place.machine.price) result.currencies.push_back(place.machine.price->currency);
    const std::int64_t gpus = PlaceSearch::gpus_of(question, place);
    if (std::string why = why_excluded(place, gpus, question.within); !why.empty()) {
      result.excluded.push_back({place.name, place.nodes, gpus, std::move(why)});
      continue;
    }
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
  rank(result);
  return result;
}

}  // namespace steelyard::search
