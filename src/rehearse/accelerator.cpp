#include "rehearse/accelerator.h"

#include <algorithm>

namespace steelyard::rehearse {
namespace {

constexpr Nanoseconds kNap = 50'000'000;  // the longest sleep: then a stop is looked for
constexpr Nanoseconds kSpin = 50'000;     // before a deadline: sleeping ends late by about that

}  // namespace

void sleep_until(Nanoseconds deadline, const std::atomic<bool>& stop) {
  for (Nanoseconds time = now(); time < deadline && !stop.load(std::memory_order_relaxed);
       time = now()) {
    if (deadline - time <= kSpin) continue;
    const Nanoseconds wake = std::min(deadline - kSpin, time + kNap);
    const timespec until{.tv_sec = wake / 1'000'000'000, .tv_nsec = wake % 1'000'000'000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
  }
}

void AcceleratorTime::step(Nanoseconds waited, Nanoseconds computed) {
  if (steps_ == 0) {
    first_waited_ = waited;
    first_computed_ = computed;
  } else {
    waited_ += waited;
    computed_ += computed;
  }
  ++steps_;
}

void AcceleratorTime::waited_in_vain(Nanoseconds waited) {
  (steps_ == 0 ? first_waited_ : waited_) += waited;
}

std::vector<Step> AcceleratorTime::summed() const {
  return {{.waited = seconds(first_waited_), .computed = seconds(first_computed_)},
          {.waited = seconds(waited_), .computed = seconds(computed_)}};
}

void run_accelerator(Batches& batches, Nanoseconds step, const std::atomic<bool>& stop,
                     AcceleratorTime& time, const std::function<void()>& took) {
  Nanoseconds end = now();  // of the last step
  while (const auto full = batches.take()) {
    const Nanoseconds late = now() - std::min(step, kCatchUp);
    const Nanoseconds begin = std::max({end, full->since, late});
    batches.give_back(full->batch);  // copied: from here on it is in the accelerator's memory
    took();
    sleep_until(begin + step, stop);
    if (stop && now() < begin + step) {  // a step that did not end does not count
      time.waited_in_vain(begin - end);
      return;
    }
    time.step(begin - end, step);
    end = begin + step;
  }
  time.waited_in_vain(std::max<Nanoseconds>(0, now() - end));
}

}  // namespace steelyard::rehearse
