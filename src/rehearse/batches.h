// A fixed number of batches in memory: workers write samples where they belong, accelerators take
// full batches in the order in which they asked.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "rehearse/clock.h"
#include "rehearse/ledger.h"

namespace steelyard::rehearse {

class Batches {
 public:
  struct Place {
    std::size_t batch = 0;
    std::uint8_t* sample = nullptr;
  };
  struct Full {
    std::size_t batch = 0;
    Nanoseconds since = 0;  // when its last sample was written
  };

  // count, samples, sample_bytes >= 1. nodes: the NUMA node of each accelerator, where that is
  // known: batches lie on them in turn.
  [[nodiscard]] static Result<std::unique_ptr<Batches>> make(std::size_t count, std::size_t samples,
                                                             std::size_t sample_bytes,
                                                             Ledger& ledger,
                                                             std::vector<int> nodes = {});

  // Where the next sample goes. Waits while no batch is free (`waited` grows by that); nothing once
  // closed. Every place that was claimed must be written.
  [[nodiscard]] std::optional<Place> claim(Nanoseconds& waited);
  void written(const Place& place);

  // The next full batch, rather one on the accelerator's own node; nothing once closed. Who asked
  // first gets it first.
  [[nodiscard]] std::optional<Full> take(std::size_t accelerator = 0);
  // The same for one who takes alone; nothing too when none is full within that time.
  [[nodiscard]] std::optional<Full> take_within(Nanoseconds most, std::size_t accelerator = 0);
  void give_back(std::size_t batch);

  void close();
  [[nodiscard]] std::size_t samples() const { return samples_; }
  [[nodiscard]] std::size_t batch_bytes() const { return samples_ * sample_bytes_; }
  [[nodiscard]] std::uint8_t* memory(std::size_t batch) const {
    return memory_.data() + batch * batch_bytes();
  }
  [[nodiscard]] std::size_t all_bytes() const { return memory_.size(); }

 private:
  Batches(Region memory, std::size_t count, std::size_t samples, std::size_t sample_bytes,
          std::vector<int> nodes);
  [[nodiscard]] Full pick(std::size_t accelerator);

  Region memory_;
  std::size_t samples_, sample_bytes_;
  std::vector<int> nodes_;
  std::mutex mutex_;
  std::condition_variable room_, full_changed_;
  std::vector<std::size_t> free_;
  std::optional<std::size_t> filling_;  // that claim hands out places of
  std::size_t claimed_ = 0;             // places of it
  std::vector<std::size_t> written_;    // by batch
  std::deque<Full> full_;
  std::uint64_t next_ticket_ = 0, served_ = 0;
  bool closed_ = false;
};

}  // namespace steelyard::rehearse
