// The solved network against hand-worked cases, against the definition of accelerator utilization
// and against a simulation of every sample.
#include <gtest/gtest.h>

#include <cmath>

#include "feed/network.h"
#include "feed/network_simulation.h"

namespace steelyard::feed {
namespace {

using testing::Simulation;

TEST(Network, workersOnTheirOwnAddUp) {
  Network network{.workers = 4, .batch = 8, .compute = 0.01};
  EXPECT_NEAR(solve(network).rate, 400.0, 1e-9);
  network.cores = 2.5;
  EXPECT_NEAR(solve(network).rate, 250.0, 1e-9);
  network.ranks = 3;
  network.cores = 100.0;
  EXPECT_NEAR(solve(network).rate, 1200.0, 1e-9);
}

// One worker waits 1 ms, then reads for 2 ms, then computes for 5 ms: 8 ms per sample.
TEST(Network, oneWorkerDoesOneThingAfterTheOther) {
  const Network network{
      .workers = 1, .batch = 4, .latency = 0.001, .storage = 0.002, .compute = 0.005};
  EXPECT_NEAR(solve(network).rate, 125.0, 1e-6);
}

// Two workers, storage and one core alike, 1 s each: of three states (both read, one each, both
// compute; equally likely) one lets each part idle. Each gives 2/3 per second.
TEST(Network, twoWorkersCollide) {
  const Network network{.workers = 2, .batch = 1, .storage = 1.0, .compute = 1.0, .cores = 1.0};
  EXPECT_NEAR(unblocked_rates(network)[1], 2.0 / 3.0, 1e-12);
  EXPECT_NEAR(unblocked_rates(network)[0], 0.5, 1e-12);
}

TEST(Network, manyWorkersReachTheSlowestPart) {
  Network network{.ranks = 8, .workers = 16, .batch = 1, .storage = 0.001, .compute = 0.01};
  EXPECT_NEAR(unblocked_rates(network).back(), 1000.0, 1.0);
  network.workers = 100;  // beyond what the convolution is done for
  EXPECT_NEAR(unblocked_rates(network).back(), 1000.0, 1e-9);
}

// Hand-over of 2 ms that follows 6 ms of work, one batch ahead: with one worker 8 ms per sample,
// with two batches ahead the two overlap.
TEST(Network, handOverOverlapsWhenBatchesAreAhead) {
  Network network{.workers = 1, .prefetch = 1, .batch = 1, .compute = 0.006, .hand_over = 0.002};
  EXPECT_NEAR(solve(network).rate, 125.0, 1e-9);
  network.prefetch = 2;
  EXPECT_NEAR(solve(network).rate, 1.0 / 0.006, 1e-9);
}

// A consumer of c seconds and a supply each s seconds: c / max(c, s) once the first step is over,
// as MLPerf Storage defines it; never starved is at least 99 %. Solved and simulated.
TEST(Network, pacedConsumer) {
  for (const double c : {0.5, 1.0, 2.0}) {
    for (const double s : {0.25, 1.0, 4.0}) {
      const Network network{.workers = 1, .prefetch = 2, .batch = 1, .compute = s, .consume = c};
      const double expected = c / std::max(c, s);
      EXPECT_NEAR(solve(network).utilization, expected, 1e-9);
      EXPECT_NEAR(Simulation(network, 1).run(1'000).utilization, expected, 1e-6);
      if (s < c) {
        EXPECT_GE(solve(network).utilization, 0.99);
      }
    }
  }
}

// Samples that differ cost most where supply and need are alike, and nothing where there is plenty.
TEST(Network, spreadEatsTheMargin) {
  Network network{.workers = 4, .prefetch = 2, .batch = 16, .compute = 0.01, .spread = 0.5};
  const auto utilization = [&](double margin) {
    network.consume = 0.01 / 4 * margin;
    return solve(network).utilization;
  };
  EXPECT_LT(utilization(1.0), 0.99);
  EXPECT_GT(utilization(1.0), 0.97);
  EXPECT_GT(utilization(1.3), 0.9999);
  network.batch = 256;
  EXPECT_GT(utilization(1.0), 0.995);
}

Network random_network(std::mt19937_64& random) {
  const auto real = [&](double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random);
  };
  const auto whole = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  Network network{.ranks = whole(1, 4), .workers = whole(1, 8), .prefetch = whole(1, 4)};
  network.batch = std::int64_t{1} << whole(2, 6);
  network.spread = real(0.0, 0.6);
  network.compute = std::exp(real(-7.0, -4.0));
  const auto workers = static_cast<double>(network.ranks * network.workers);
  if (whole(0, 1) == 1) network.storage = network.compute / workers * 2 * std::exp(real(-5, 0));
  if (whole(0, 1) == 1) network.latency = network.compute * real(0.0, 2.0);
  if (whole(0, 1) == 1) network.contention = network.compute * real(0.0, 0.2);
  if (whole(0, 1) == 1) network.cores = std::max(1.0, workers * real(0.3, 1.2));
  const double each = static_cast<double>(network.ranks) / solve(network).rate;
  if (whole(0, 2) == 0) network.hand_over = each * real(0.1, 1.1);
  if (whole(0, 3) > 0) network.consume = each * real(0.6, 1.6);
  return network;
}

TEST(Network, agreesWithTheSimulationOfEverySample) {
  std::mt19937_64 random(20'271);
  for (int i = 0; i < 30; ++i) {
    const Network network = random_network(random);
    const std::int64_t batches = std::max<std::int64_t>(400, 20'000 / network.batch);
    const Flow simulated = Simulation(network, static_cast<std::uint64_t>(i)).run(batches);
    const Flow solved = solve(network);
    EXPECT_NEAR(solved.rate / simulated.rate, 1.0, 0.03)
        << i << ": " << network.ranks << " ranks, " << network.workers << " workers, "
        << network.prefetch << " ahead, batches of " << network.batch << ", spread "
        << network.spread << ", storage " << network.storage << ", latency " << network.latency
        << ", compute " << network.compute << ", cores " << network.cores << ", hand-over "
        << network.hand_over << ", GPU " << network.consume;
  }
}

}  // namespace
}  // namespace steelyard::feed
