// The five stages side by side, the network that they are, and what it means for the GPUs.
#include <algorithm>
#include <cmath>
#include <span>

#include "feed/feed.h"
#include "feed/network.h"
#include "feed/path.h"

namespace steelyard::feed {
namespace {

// The lowest accelerator utilization that MLPerf Storage accepts for most workloads
// (Submission_guidelines.md): below it, a loader that never overlaps with the step is the limit.
constexpr double kStarvedBelow = 0.90;
// With loader processes, waiting less than this is chance, not a stage that is short.
constexpr double kUnnoticed = 0.02;
// What a person would try: more loader processes or batches ahead than these help nobody.
constexpr std::int64_t kMostWorkers = 64;
constexpr std::int64_t kMostPrefetch = 16;
constexpr double kSameSupply = 0.005;
constexpr double kAllButRounding = 1.0 - 1e-9;  // nobody waits

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

double spread_of(const Path& path) {
  const facts::DataKeys& data = path.job.data;
  if (data.bytes_deviation && data.bytes_per_sample && *data.bytes_per_sample > 0.0) {
    return *data.bytes_deviation / *data.bytes_per_sample;
  }
  if (!data.kind) return 0.0;
  const auto found = path.constants.sample_spread.find(facts::name_of(*data.kind));
  return found == path.constants.sample_spread.end() ? 0.0 : found->second;
}

bool has_threads(const Path& path) {
  return path.constants.loader && !is_synthetic(path);
}

Stations stations_of(const Path& path) {
  if (has_threads(path)) return threaded(path).stations;
  return {storage(path), read(path), decode(path), assemble(path), host_to_device(path)};
}

// The stages as a closed network of loader processes, in samples as ranks load them: a sample that
// the job consumes is loaded `loads` times.
Network network_of(const Path& path, const Stations& stations) {
  const auto loads = static_cast<double>(path.loads);
  Network network;
  network.ranks = path.ranks;
  network.workers = std::max<std::int64_t>(1, path.workers);
  network.prefetch = std::max<std::int64_t>(1, path.job.data.prefetch);
  network.batch = std::max<std::int64_t>(1, *path.job.train.micro_batch);
  network.latency = stations[0].latency;
  network.storage = stations[0].seconds / loads;
  network.compute = worker_seconds(path).value();
  if (path.cores) network.cores = *path.cores;
  network.hand_over = std::max(handing_over(path).value(), copy_seconds(path).value());
  network.spread = spread_of(path);
  if (path.needed && path.needed->value() > 0.0) {
    network.consume = static_cast<double>(path.ranks) / (path.needed->value() * loads);
  }
  return network;
}

// Without loader processes times add up; with them the network says.
struct Answer {
  std::optional<SamplesPerSecond> supply;
  std::optional<Ratio> utilization;
};

Answer serial(const Path& path, const Stations& stations) {
  const bool decodes = stations[2].used;
  double loading = 0.0;
  for (const Station& station : stations) {
    if (!station.used || !station.stage.can) continue;
    if (decodes && station.stage.name == "read") continue;
    loading += 1.0 / station.stage.can->value();
  }
  Answer answer;
  if (loading > 0.0) answer.supply = SamplesPerSecond(1.0 / loading);
  if (path.needed) {
    const double training = 1.0 / path.needed->value();
    answer.utilization = Ratio(training / (training + loading));
  }
  return answer;
}

// Threads with buffers between them: the slowest stage decides.
Answer pooled(const Path& path, const Stations& stations) {
  Answer answer;
  const facts::FeedStage* slowest = slowest_of(stations);
  if (slowest == nullptr) return answer;
  answer.supply = slowest->can;
  if (path.needed && path.needed->value() > 0.0) {
    answer.utilization = Ratio(std::min(1.0, slowest->can->value() / path.needed->value()));
  }
  return answer;
}

Answer flow_through(const Path& path, const Stations& stations) {
  if (has_threads(path)) return pooled(path, stations);
  if (path.workers == 0 && !is_synthetic(path)) return serial(path, stations);
  Network network = network_of(path, stations);
  Answer answer;
  if (path.needed) answer.utilization = Ratio(solve(network).utilization);
  network.consume = 0.0;
  const double rate = solve(network).rate / static_cast<double>(path.loads);
  if (std::isfinite(rate)) answer.supply = SamplesPerSecond(rate);
  return answer;
}

facts::FeedFlow judged(const Path& path, const Stations& stations) {
  facts::FeedFlow flow;
  const bool known = all_known(stations);
  const bool overlaps = path.workers > 0 || is_synthetic(path) || has_threads(path);
  const facts::FeedStage* slowest = slowest_of(stations);
  const Answer answer = flow_through(path, stations);
  if (known) flow.supply = answer.supply;
  if (!path.needed || !answer.utilization) return flow;
  const double solved = answer.utilization->value();
  const double utilization = solved < kAllButRounding ? solved : 1.0;
  const bool is_short = utilization < (overlaps ? 1.0 - kUnnoticed : kStarvedBelow) ||
                        (overlaps && slowest != nullptr && *slowest->can < *path.needed);
  // A stage of unknown rate could be slower still: then only a shortage that is known is said.
  if (!is_short && !known) return flow;
  flow.accelerator_utilization = Ratio(utilization);
  flow.gpu_wait_fraction = Ratio(1.0 - utilization);
  if (is_short && slowest != nullptr) flow.limited_by = slowest->name;
  return flow;
}

// The fewest loader processes per rank with which the GPUs do not starve. More of them never feed
// less, up to chance.
std::optional<std::int64_t> workers_enough(const Path& path) {
  const auto feeds = [&](std::int64_t workers) {
    const Path changed = with_loaders(path, workers);
    const Stations stations = stations_of(changed);
    if (!all_known(stations)) return false;
    const auto utilization = flow_through(changed, stations).utilization;
    return utilization && utilization->value() >= 1.0 - kUnnoticed;
  };
  if (!feeds(kMostWorkers)) return std::nullopt;
  std::int64_t low = 0;
  std::int64_t high = kMostWorkers;
  while (high - low > 1) {
    const std::int64_t middle = (low + high) / 2;
    (feeds(middle) ? high : low) = middle;
  }
  return high;
}

std::optional<std::int64_t> prefetch_enough(const Path& path, const Stations& stations) {
  Network network = network_of(path, stations);
  network.prefetch = kMostPrefetch;
  const double best = solve(network).rate;
  if (!std::isfinite(best)) return std::nullopt;
  for (network.prefetch = 1; network.prefetch < kMostPrefetch; network.prefetch *= 2) {
    if (solve(network).rate >= best * (1.0 - kSameSupply)) break;
  }
  return network.prefetch;
}

// What differences between samples cost: the supply against that of equal samples.
std::optional<Ratio> spread_loss(const Path& path, const Stations& stations) {
  Network network = network_of(path, stations);
  const double with = solve(network).rate;
  network.spread = 0.0;
  const double without = solve(network).rate;
  if (!std::isfinite(without) || without <= 0.0) return std::nullopt;
  return Ratio(std::max(0.0, 1.0 - with / without));
}

}  // namespace

Result<facts::FeedPlan> data_path(const Request& request) {
  STEELYARD_TRY(path, path_of(request));
  const Stations stations = stations_of(path);
  facts::FeedPlan plan;
  static_cast<facts::FeedFlow&>(plan) = judged(path, stations);
  if (request.flow_only) return plan;
  const Path first = in_first_epoch(path);
  const Stations at_first = stations_of(first);
  plan.first_epoch = judged(first, at_first);
  for (std::size_t i = 0; i < stations.size(); ++i) {
    facts::FeedStage stage = stations[i].stage;
    stage.can_at_first = at_first[i].stage.can;
    stage.needed = request.needed_per_node;
    plan.stages.push_back(std::move(stage));
  }
  std::optional<SamplesPerSecond> rate = plan.supply ? plan.supply : request.needed_per_node;
  if (rate && request.needed_per_node) rate = std::min(*rate, *request.needed_per_node);
  plan.numa = numa(path, rate);
  if (path.workers > 0 && !is_synthetic(path) && all_known(stations)) {
    if (path.needed) plan.workers_enough = workers_enough(path);
    if (has_threads(path)) return plan;
    plan.prefetch_enough = prefetch_enough(path, stations);
    plan.spread_loss = spread_loss(path, stations);
  }
  return plan;
}

}  // namespace steelyard::feed
