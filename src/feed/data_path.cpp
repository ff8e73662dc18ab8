// The five stages side by side, and what their slowest means for the GPUs.
#include <algorithm>
#include <array>
#include <span>

#include "feed/feed.h"
#include "feed/path.h"

namespace steelyard::feed {
namespace {

// The lowest accelerator utilization that MLPerf Storage accepts for most workloads
// (Submission_guidelines.md): below it, a loader that never overlaps with the step is the limit.
constexpr double kStarvedBelow = 0.90;

// The slowest stage whose rate is known; null when none is.
const facts::FeedStage* slowest_of(std::span<const Station> stations) {
  const facts::FeedStage* slowest = nullptr;
  for (const Station& station : stations) {
    if (!station.used || !station.stage.can) continue;
    if (slowest == nullptr || *station.stage.can < *slowest->can) slowest = &station.stage;
  }
  return slowest;
}

bool all_known(std::span<const Station> stations) {
  return std::ranges::all_of(stations,
                             [](const Station& s) { return !s.used || s.stage.can.has_value(); });
}

// Without loader processes the rank loads, then trains: times add up instead of overlapping. The
// decode stage's time contains the read; without it on the path the read counts itself.
Ratio serial_utilization(std::span<const Station> stations, SamplesPerSecond needed) {
  const bool decodes = std::ranges::any_of(
      stations, [](const Station& s) { return s.used && s.stage.name == "decode"; });
  double loading = 0.0;
  for (const Station& station : stations) {
    if (!station.used || !station.stage.can) continue;
    if (decodes && station.stage.name == "read") continue;
    loading += 1.0 / station.stage.can->value();
  }
  const double training = 1.0 / needed.value();
  return Ratio(training / (training + loading));
}

void judge(facts::FeedPlan& plan, std::span<const Station> stations, SamplesPerSecond needed,
           bool serial) {
  const facts::FeedStage* slowest = slowest_of(stations);
  if (slowest == nullptr) {
    // Nothing on the path at all (synthetic data), or nothing known of it.
    if (all_known(stations)) {
      plan.accelerator_utilization = Ratio(1.0);
      plan.gpu_wait_fraction = Ratio(0.0);
    }
    return;
  }
  Ratio utilization =
      serial ? serial_utilization(stations, needed) : std::min(Ratio(1.0), *slowest->can / needed);
  const bool is_short = serial ? utilization < Ratio(kStarvedBelow) : *slowest->can < needed;
  // A stage of unknown rate could be slower still: then only a shortage that is known is said.
  if (!is_short && !all_known(stations)) return;
  plan.accelerator_utilization = utilization;
  plan.gpu_wait_fraction = Ratio(1.0) - utilization;
  if (is_short) plan.limited_by = slowest->name;
}

}  // namespace

Result<facts::FeedPlan> data_path(const Request& request) {
  STEELYARD_TRY(path, path_of(request));
  std::array<Station, 5> stations = {storage(path), read(path), decode(path), assemble(path),
                                     host_to_device(path)};
  facts::FeedPlan plan;
  for (Station& station : stations) {
    station.stage.needed = request.needed_per_node;
    plan.stages.push_back(station.stage);
  }
  const bool serial = path.workers == 0 && !is_synthetic(path);
  if (request.needed_per_node && request.needed_per_node->value() > 0.0) {
    judge(plan, stations, *request.needed_per_node, serial);
  }
  return plan;
}

}  // namespace steelyard::feed
