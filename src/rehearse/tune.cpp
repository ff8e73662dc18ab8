#include "rehearse/tune.h"

#include <algorithm>

namespace steelyard::rehearse {
namespace {

class Tuner {
 public:
  Tuner(Ratio target, const Trial& trial) : trial_(trial) { tuning_.target = target; }

  // Whether the settings are enough; then they are kept as the best.
  Result<bool> enough(const Settings& settings) {
    STEELYARD_TRY(rehearsal, trial_(settings));
    const auto used = rehearsal.utilization_least;
    const bool reached = used && *used >= tuning_.target;
    tuning_.tries.push_back({.workers = settings.workers,
                             .prefetch = settings.prefetch,
                             .depth = settings.most_depth,
                             .utilization = used,
                             .needed = rehearsal.memory.needed,
                             .enough = reached});
    if (reached || tuning_.tries.size() == 1) best_ = {settings, std::move(rehearsal)};
    return reached;
  }

  // The least value of one setting from 1 to what the best has.
  Result<void> lower(std::int64_t Settings::*which) {
    std::int64_t low = 1, high = best_.settings.*which;
    while (low < high) {
      Settings settings = best_.settings;
      settings.*which = low + (high - low) / 2;
      STEELYARD_TRY(reached, enough(settings));
      (reached ? high : low) = settings.*which + (reached ? 0 : 1);
    }
    return {};
  }

  Tuned done(bool reached) {
    tuning_.reached = reached;
    best_.rehearsal.tuning = tuning_;
    return std::move(best_);
  }

 private:
  const Trial& trial_;
  facts::RehearsalTuning tuning_;
  Tuned best_;
};

}  // namespace

Result<Tuned> tune(const Settings& start, std::int64_t most_workers, Ratio target,
                   const Trial& trial) {
  if (start.step_time.value() <= 0) {
    return fail({.code = ErrorCode::missing_value,
                 .subject = "--tune",
                 .found = "no step time",
                 .accepted = "--step-time SECONDS, or a job whose plan has one",
                 .hint = "without it no accelerator is ever used or idle"});
  }
  Tuner tuner(target, trial);
  Settings most = start;
  // The first step does not count: a try has several.
  constexpr double kSteps = 5.0;
  most.duration = std::max(most.duration, Seconds(kSteps * start.step_time.value()));
  most.workers = most_workers;
  STEELYARD_TRY(reached, tuner.enough(most));
  if (!reached) return tuner.done(false);
  STEELYARD_CHECK(tuner.lower(&Settings::workers));
  STEELYARD_CHECK(tuner.lower(&Settings::prefetch));
  STEELYARD_CHECK(tuner.lower(&Settings::most_depth));
  return tuner.done(true);
}

}  // namespace steelyard::rehearse
