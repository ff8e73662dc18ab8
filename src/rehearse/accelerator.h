// An accelerator that only keeps time: it takes a batch, computes for the step time, takes the next
// (MLPerf Storage and DLIO do the same with a sleep).
#pragma once

#include <atomic>
#include <functional>
#include <vector>

#include "rehearse/batches.h"
#include "rehearse/stage_time.h"
#include "rehearse/utilization.h"

namespace steelyard::rehearse {

// What one accelerator did so far. Written by its thread, read by others.
class AcceleratorTime {
 public:
  void step(Nanoseconds waited, Nanoseconds computed);
  void waited_in_vain(Nanoseconds waited);

  [[nodiscard]] std::int64_t steps() const { return steps_; }
  // The first step, and all others as one.
  [[nodiscard]] std::vector<Step> summed() const;
  // From the first step's end on.
  [[nodiscard]] Nanoseconds steady() const { return waited_ + computed_; }
  [[nodiscard]] Nanoseconds computed() const { return first_computed_ + computed_; }
  [[nodiscard]] Nanoseconds waited() const { return first_waited_ + waited_; }

 private:
  std::atomic<Nanoseconds> first_waited_{0}, first_computed_{0}, waited_{0}, computed_{0};
  std::atomic<std::int64_t> steps_{0};
};

constexpr Nanoseconds kCatchUp = 20'000'000;  // a thread later than that is counted as waiting

// Wakes at the deadline, or soon after `stop` is set.
void sleep_until(Nanoseconds deadline, const std::atomic<bool>& stop);

// Takes batches until they are closed. The clock of an accelerator is not that of its thread: a
// step begins when the one before has ended and its batch is full, whenever the thread woke up; so
// a busy machine that wakes threads late does not show as accelerators that wait.
void run_accelerator(Batches& batches, Nanoseconds step, const std::atomic<bool>& stop,
                     AcceleratorTime& time, const std::function<void()>& took);

}  // namespace steelyard::rehearse
