#include "feed/network.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace steelyard::feed {
namespace {

// Beyond it chance plays no part any more, and the constants of the convolution would overflow.
constexpr std::int64_t kMostCustomers = 400;
// Batches of a run: a rate of independent times with the worst spread is known within half a per
// cent; the first of them fill the buffers.
constexpr std::size_t kBatches = 4096;
constexpr std::size_t kWarmUp = 512;

// Samples per second of the cores with `busy` workers on them. Those of one rank slow each other
// down where they hand over.
double cores_rate(const Network& network, double busy) {
  const double running = std::min(busy, network.cores);
  const double others = std::max(0.0, running / static_cast<double>(network.ranks) - 1.0);
  const double seconds = network.compute + others * std::min(network.contention, network.compute);
  return running / seconds;
}

// Customers so many that queues never run empty: the slowest of the parts alone.
double bound(const Network& network, double customers) {
  double rate = std::numeric_limits<double>::infinity();
  double alone = network.latency + network.storage;
  if (network.storage > 0.0) rate = 1.0 / network.storage;
  if (network.compute > 0.0) {
    const double cores = cores_rate(network, customers);
    rate = std::min(rate, cores);
    alone += std::min(customers, network.cores) / cores;
  }
  return std::min(rate, customers / alone);
}

// Standard normal numbers, always the same ones: splitmix64 and Box-Muller, brought to mean 0 and
// deviation 1.
std::vector<double> made_normals() {
  std::vector<double> normals(kBatches);
  std::uint64_t state = 0;
  const auto uniform = [&state] {
    std::uint64_t z = (state += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebULL;
    z ^= z >> 31U;
    return (static_cast<double>(z >> 11U) + 0.5) * 0x1.0p-53;
  };
  double sum = 0.0;
  double squares = 0.0;
  for (double& normal : normals) {
    const double radius = std::sqrt(-2.0 * std::log(uniform()));
    normal = radius * std::cos(2.0 * std::numbers::pi * uniform());
    sum += normal;
    squares += normal * normal;
  }
  const auto count = static_cast<double>(kBatches);
  const double mean = sum / count;
  const double deviation = std::sqrt(squares / count - mean * mean);
  for (double& normal : normals) normal = (normal - mean) / deviation;
  return normals;
}

// What each batch of the run takes, relative to the mean: log-normal, so that none is negative.
std::vector<double> batch_factors(double spread) {
  static const std::vector<double> normals = made_normals();
  const double sigma = std::sqrt(std::log1p(spread * spread));
  std::vector<double> factors(kBatches);
  double sum = 0.0;
  for (std::size_t i = 0; i < kBatches; ++i) sum += factors[i] = std::exp(sigma * normals[i]);
  for (double& factor : factors) factor *= static_cast<double>(kBatches) / sum;
  return factors;
}

// Seconds per batch of one rank whose workers take `work` seconds for a batch when all batches are
// alike: the longest mean of a circuit of the recursion below.
double steady_period(const Network& network, double work) {
  const auto batch = static_cast<double>(network.batch);
  const auto workers = static_cast<double>(network.workers);
  const double pass = network.hand_over * batch;
  return std::max({work / workers,
                   (work + pass) / (workers * static_cast<double>(network.prefetch)), pass,
                   network.consume * batch});
}

// The same when they differ. A worker starts batch i when it has finished i - W and when i - W f
// has been taken; batches pass the hand-over and are taken in order.
double mean_period(const Network& network, double work, const std::vector<double>& factors) {
  const auto workers = static_cast<std::size_t>(network.workers);
  const std::size_t ahead = workers * static_cast<std::size_t>(network.prefetch);
  const double pass = network.hand_over * static_cast<double>(network.batch);
  const double pace = network.consume * static_cast<double>(network.batch);
  std::vector<double> finished(kBatches);
  std::vector<double> taken(kBatches);
  double passed = 0.0;
  for (std::size_t i = 0; i < kBatches; ++i) {
    double start = i >= workers ? finished[i - workers] : 0.0;
    if (i >= ahead) start = std::max(start, taken[i - ahead]);
    finished[i] = start + work * factors[i];
    passed = std::max(finished[i], passed) + pass;
    taken[i] = std::max(passed, i == 0 ? 0.0 : taken[i - 1] + pace);
  }
  return (taken[kBatches - 1] - taken[kWarmUp - 1]) / static_cast<double>(kBatches - kWarmUp);
}

// Unblocked rate of a number of customers that need not be whole.
double between(const std::vector<double>& rates, double customers) {
  const double below = std::floor(customers);
  const auto index = static_cast<std::size_t>(below);
  const double low = index == 0 ? 0.0 : rates[index - 1];
  if (index >= rates.size()) return rates.back();
  return low + (rates[index] - low) * (customers - below);
}

// Seconds that a worker takes for a batch while `busy` workers of the node are not held up.
double work_of(const Network& network, const std::vector<double>& rates, double busy) {
  return busy / between(rates, busy) * static_cast<double>(network.batch);
}

// The period of batches in `work`, never shorter than when all are alike.
double period_of(const Network& network, double work, const std::vector<double>& factors) {
  const double alike = steady_period(network, work);
  return factors.empty() ? alike : std::max(alike, mean_period(network, work, factors));
}

// Workers that wait for their turn leave storage and cores to the others: the number of those that
// do not wait is such that both sides give the same rate.
double settled_period(const Network& network, const std::vector<double>& rates,
                      const std::vector<double>& factors) {
  const double all = static_cast<double>(rates.size());
  double period = period_of(network, work_of(network, rates, all), factors);
  const double shortest =
      std::max(network.consume, network.hand_over) * static_cast<double>(network.batch);
  if (period <= shortest * (1.0 + 1e-9)) return period;
  const double samples = static_cast<double>(network.batch * network.ranks);
  const bool none_waits = samples / period >= rates.back() * (1.0 - 1e-9);
  const bool none_in_the_way = rates.back() >= rates.front() * all * (1.0 - 1e-6);
  if (none_waits || none_in_the_way) return period;
  double low = 0.0;
  double high = all;
  constexpr int kHalvings = 12;
  for (int i = 0; i < kHalvings; ++i) {
    const double busy = (low + high) / 2.0;
    period = period_of(network, work_of(network, rates, busy), factors);
    (samples / period > between(rates, busy) ? low : high) = busy;
  }
  return period;
}

}  // namespace

std::vector<double> unblocked_rates(const Network& network) {
  const std::int64_t customers = network.ranks * network.workers;
  const auto count = static_cast<std::size_t>(customers);
  std::vector<double> rates(count);
  const bool shared = network.latency > 0.0 || network.storage > 0.0;
  if (customers > kMostCustomers || !shared || network.compute <= 0.0) {
    for (std::size_t n = 1; n <= count; ++n) rates[n - 1] = bound(network, static_cast<double>(n));
    if (customers > kMostCustomers || !shared) return rates;
  }
  // Buzen's convolution in a unit in which every part is at most about 1 when all are busy.
  const double unit = 1.0 / bound(network, static_cast<double>(customers));
  std::vector<double> constants(count + 1, 0.0);
  constants[0] = 1.0;
  for (std::size_t n = 1; n <= count; ++n) {
    constants[n] = constants[n - 1] * network.latency / unit / static_cast<double>(n);
  }
  for (std::size_t n = 1; n <= count; ++n)
    constants[n] += network.storage / unit * constants[n - 1];
  if (network.compute > 0.0) {
    std::vector<double> cores(count + 1, 1.0);
    for (std::size_t n = 1; n <= count; ++n) {
      cores[n] = cores[n - 1] / (cores_rate(network, static_cast<double>(n)) * unit);
    }
    std::vector<double> both(count + 1, 0.0);
    for (std::size_t n = 0; n <= count; ++n) {
      for (std::size_t k = 0; k <= n; ++k) both[n] += constants[n - k] * cores[k];
    }
    constants = std::move(both);
  }
  for (std::size_t n = 1; n <= count; ++n) {
    rates[n - 1] = constants[n - 1] / constants[n] / unit;
  }
  return rates;
}

Flow solve(const Network& network) {
  const double samples = static_cast<double>(network.batch * network.ranks);
  const bool works = network.latency + network.storage + network.compute > 0.0;
  double period = steady_period(network, 0.0);
  if (works) {
    const std::vector<double> rates = unblocked_rates(network);
    // Latency does not depend on the sample, and the samples of a batch even out.
    const double cycle = static_cast<double>(rates.size()) / rates.back();
    const double spread = network.spread * (1.0 - network.latency / cycle) /
                          std::sqrt(static_cast<double>(network.batch));
    const std::vector<double> factors =
        spread > 0.0 ? batch_factors(spread) : std::vector<double>();
    period = settled_period(network, rates, factors);
  }
  Flow flow;
  flow.rate = period > 0.0 ? samples / period : std::numeric_limits<double>::infinity();
  const double paced = network.consume * static_cast<double>(network.batch);
  if (paced > 0.0) flow.utilization = std::min(1.0, paced / period);
  return flow;
}

}  // namespace steelyard::feed
