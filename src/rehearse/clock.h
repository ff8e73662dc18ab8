// Clocks of the rehearsal, and what one thread did with its time.
#pragma once

#include <time.h>

#include <cstdint>

#include "base/quantity.h"

namespace steelyard::rehearse {

using Nanoseconds = std::int64_t;

inline Nanoseconds read_clock(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}
inline Nanoseconds now() {
  return read_clock(CLOCK_MONOTONIC);
}
inline Nanoseconds cpu_of_thread() {
  return read_clock(CLOCK_THREAD_CPUTIME_ID);
}
inline Seconds seconds(Nanoseconds time) {
  return Seconds(static_cast<double>(time) * 1e-9);
}
inline Nanoseconds nanoseconds(Seconds time) {
  return static_cast<Nanoseconds>(time.value() * 1e9);
}

}  // namespace steelyard::rehearse
