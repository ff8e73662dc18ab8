// A queue between threads. Closed, it lets nobody wait any more.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "rehearse/clock.h"

namespace steelyard::rehearse {

// Its length is bounded by what goes through it: a fixed number of buffers.
template <class T>
class BoundedQueue {
 public:
  void push(T item) {
    {
      const std::scoped_lock lock(mutex_);
      items_.push_back(std::move(item));
    }
    filled_.notify_one();
  }

  // Waits for an item; nothing once the queue is closed. `waited` grows by the time that took.
  [[nodiscard]] std::optional<T> pop(Nanoseconds& waited) {
    std::unique_lock lock(mutex_);
    if (items_.empty() && !closed_) {
      ++waiting_;
      const Nanoseconds begin = now();
      filled_.wait(lock, [&] { return closed_ || !items_.empty(); });
      waited += now() - begin;
      --waiting_;
    }
    if (closed_ || items_.empty()) return std::nullopt;
    T item = std::move(items_.front());
    items_.pop_front();
    return item;
  }

  [[nodiscard]] std::optional<T> try_pop() {
    const std::scoped_lock lock(mutex_);
    if (closed_ || items_.empty()) return std::nullopt;
    T item = std::move(items_.front());
    items_.pop_front();
    return item;
  }

  // How many threads wait for an item now.
  [[nodiscard]] int waiting() const {
    const std::scoped_lock lock(mutex_);
    return waiting_;
  }

  void close() {
    {
      const std::scoped_lock lock(mutex_);
      closed_ = true;
    }
    filled_.notify_all();
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable filled_;
  std::deque<T> items_;
  int waiting_ = 0;
  bool closed_ = false;
};

}  // namespace steelyard::rehearse
