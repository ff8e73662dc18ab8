// The network of src/feed/network.h event by event: every sample, every worker, every batch.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <deque>
#include <limits>
#include <random>
#include <vector>

#include "feed/network.h"

namespace steelyard::feed::testing {

class Simulation {
 public:
  Simulation(const Network& network, std::uint64_t seed)
      : network_(network), random_(seed), ranks_(static_cast<std::size_t>(network.ranks)) {
    const double sigma = std::sqrt(std::log1p(network.spread * network.spread));
    factor_ = std::lognormal_distribution<double>(-sigma * sigma / 2, sigma);
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      ranks_[r].asked.resize(static_cast<std::size_t>(network.workers));
      for (std::int64_t i = 0; i < network.workers * network.prefetch; ++i) ask(r);
      for (std::int64_t w = 0; w < network.workers; ++w) {
        workers_.push_back({.rank = r, .number = static_cast<std::size_t>(w)});
      }
    }
    for (Worker& worker : workers_) next_batch(worker);
  }

  // Runs until each rank has taken `batches`; the first tenth is not counted.
  Flow run(std::int64_t batches) {
    const std::int64_t first = batches / 10;
    double began = -1.0;
    while (taken_everywhere() < batches) {
      advance();
      if (began < 0.0 && taken_everywhere() >= first) {
        began = now_;
        for (Rank& rank : ranks_) rank.counted_from = rank.taken;
      }
    }
    Flow flow;
    double samples = 0.0;
    for (const Rank& rank : ranks_) {
      samples += static_cast<double>((rank.taken - rank.counted_from) * network_.batch);
    }
    flow.rate = samples / (now_ - began);
    flow.utilization = flow.rate * network_.consume / static_cast<double>(network_.ranks);
    return flow;
  }

 private:
  enum class At { idle, latency, storage, cores };
  struct Worker {
    std::size_t rank = 0, number = 0;
    At at = At::idle;
    double left = 0.0;  // seconds of latency, or of work at full speed
    double factor = 1.0;
    std::int64_t batch = 0, samples = 0;
  };
  struct Rank {
    std::vector<std::deque<std::int64_t>> asked;  // of each worker
    std::vector<bool> finished;
    std::int64_t next_asked = 0, handed = 0, passing = -1, ready = 0, taken = 0, counted_from = 0;
    double passed_at = 0.0, free_at = 0.0;  // of the hand-over, of the GPU
  };

  static constexpr double kNever = std::numeric_limits<double>::infinity();

  void ask(std::size_t r) {
    Rank& rank = ranks_[r];
    const std::int64_t batch = rank.next_asked++;
    rank.asked[static_cast<std::size_t>(batch % network_.workers)].push_back(batch);
    rank.finished.push_back(false);
  }

  void next_batch(Worker& worker) {
    auto& asked = ranks_[worker.rank].asked[worker.number];
    worker.at = At::idle;
    if (asked.empty()) return;
    worker.batch = asked.front();
    asked.pop_front();
    worker.samples = network_.batch;
    next_sample(worker);
  }

  void next_sample(Worker& worker) {
    worker.factor = network_.spread > 0.0 ? factor_(random_) : 1.0;
    worker.at = At::latency;
    worker.left = network_.latency;
  }

  // What a worker does when it is done where it is.
  void move_on(Worker& worker) {
    switch (worker.at) {
      case At::idle: return;
      case At::latency:
        worker.at = At::storage;
        worker.left = network_.storage * worker.factor;
        return;
      case At::storage:
        worker.at = At::cores;
        worker.left = network_.compute * worker.factor;
        return;
      case At::cores: break;
    }
    if (--worker.samples > 0) return next_sample(worker);
    ranks_[worker.rank].finished[static_cast<std::size_t>(worker.batch)] = true;
    next_batch(worker);
  }

  [[nodiscard]] double speed(At at, double in_storage, double on_cores) const {
    if (at == At::latency) return 1.0;
    if (at == At::storage) return 1.0 / in_storage;
    const double running = std::min(on_cores, network_.cores);
    const double others = std::max(0.0, running / static_cast<double>(network_.ranks) - 1.0);
    const double slower =
        1.0 + others * std::min(network_.contention, network_.compute) / network_.compute;
    return running / on_cores / slower;
  }

  // Batches pass the hand-over one by one and in order; a GPU that is free takes the next one.
  bool deliver() {
    bool moved = false;
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      Rank& rank = ranks_[r];
      if (rank.passing >= 0 && rank.passed_at <= now_) {
        rank.passing = -1;
        ++rank.ready;
        moved = true;
      }
      const auto next = static_cast<std::size_t>(rank.handed);
      if (rank.passing < 0 && next < rank.finished.size() && rank.finished[next]) {
        rank.passing = rank.handed++;
        rank.passed_at = now_ + network_.hand_over * static_cast<double>(network_.batch);
        moved = true;
      }
      if (rank.ready > 0 && rank.free_at <= now_) {
        --rank.ready;
        ++rank.taken;
        rank.free_at = now_ + network_.consume * static_cast<double>(network_.batch);
        ask(r);
        moved = true;
      }
    }
    for (Worker& worker : workers_) {
      if (worker.at == At::idle) {
        next_batch(worker);
        moved = moved || worker.at != At::idle;
      }
    }
    return moved;
  }

  void advance() {
    while (deliver()) {
    }
    double in_storage = 0.0, on_cores = 0.0;
    for (const Worker& worker : workers_) {
      in_storage += worker.at == At::storage ? 1.0 : 0.0;
      on_cores += worker.at == At::cores ? 1.0 : 0.0;
    }
    double step = kNever;
    for (const Worker& worker : workers_) {
      if (worker.at == At::idle) continue;
      step = std::min(step, worker.left / speed(worker.at, in_storage, on_cores));
    }
    for (const Rank& rank : ranks_) {
      if (rank.passing >= 0) step = std::min(step, rank.passed_at - now_);
      if (rank.ready > 0) step = std::min(step, std::max(0.0, rank.free_at - now_));
    }
    now_ += step;
    for (Worker& worker : workers_) {
      if (worker.at == At::idle) continue;
      const double before = worker.left;
      worker.left -= step * speed(worker.at, in_storage, on_cores);
      if (worker.left <= before * 1e-12 + 1e-15) done_.push_back(&worker);
    }
    for (Worker* worker : done_) move_on(*worker);
    done_.clear();
  }

  [[nodiscard]] std::int64_t taken_everywhere() const {
    std::int64_t least = std::numeric_limits<std::int64_t>::max();
    for (const Rank& rank : ranks_) least = std::min(least, rank.taken);
    return least;
  }

  Network network_;
  std::mt19937_64 random_;
  std::lognormal_distribution<double> factor_;
  std::vector<Rank> ranks_;
  std::vector<Worker> workers_;
  std::vector<Worker*> done_;
  double now_ = 0.0;
};

}  // namespace steelyard::feed::testing
