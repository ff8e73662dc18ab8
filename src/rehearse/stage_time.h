// What the threads of one stage did with their time. Each thread keeps its own and adds it at its
// end.
#pragma once

#include <atomic>
#include <cstdint>

#include "rehearse/clock.h"

namespace steelyard::rehearse {

struct ThreadTime {
  Nanoseconds began = 0, waited_for_data = 0, waited_for_room = 0;
  std::int64_t done = 0;   // records
  std::int64_t bytes = 0;  // of them
};

class StageTime {
 public:
  // By the thread itself: its CPU time is added too.
  void add(const ThreadTime& thread) {
    const Nanoseconds whole = now() - thread.began;
    busy_ += whole - thread.waited_for_data - thread.waited_for_room;
    waited_for_data_ += thread.waited_for_data;
    waited_for_room_ += thread.waited_for_room;
    cpu_ += cpu_of_thread();
    done_ += thread.done;
    bytes_ += thread.bytes;
    ++threads_;
  }

  [[nodiscard]] Nanoseconds busy() const { return busy_; }
  [[nodiscard]] Nanoseconds waited_for_data() const { return waited_for_data_; }
  [[nodiscard]] Nanoseconds waited_for_room() const { return waited_for_room_; }
  [[nodiscard]] Nanoseconds cpu() const { return cpu_; }
  [[nodiscard]] std::int64_t done() const { return done_; }
  [[nodiscard]] std::int64_t bytes() const { return bytes_; }
  [[nodiscard]] std::int64_t threads() const { return threads_; }

 private:
  std::atomic<Nanoseconds> busy_{0}, waited_for_data_{0}, waited_for_room_{0}, cpu_{0};
  std::atomic<std::int64_t> done_{0}, bytes_{0}, threads_{0};
};

}  // namespace steelyard::rehearse
