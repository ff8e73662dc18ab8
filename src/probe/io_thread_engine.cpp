#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <optional>
#include <thread>

#include "probe/interruption.h"
#include "probe/io_engine.h"
#include "probe/pages.h"
#include "probe/repeat.h"

namespace steelyard::probe {

namespace {

// As many threads as requests in flight, each waiting for its own.
class ThreadRun {
 public:
  ThreadRun(const IoPattern& pattern, const Pages& pages)
      : pattern_(pattern), pages_(pages), offsets_(pattern) {}

  [[nodiscard]] Result<IoResult> go() {
    begin_ = monotonic_seconds();
    {
      std::vector<std::jthread> threads;
      for (std::int64_t slot = 0; slot < pattern_.depth; ++slot)
        threads.emplace_back([this, slot] { work(static_cast<std::size_t>(slot)); });
    }
    if (failure_) return fail(*failure_);
    result_.elapsed = Seconds(monotonic_seconds() - begin_);
    result_.moved = pattern_.request * result_.requests;
    return std::move(result_);
  }

 private:
  [[nodiscard]] std::int64_t next_offset() {
    const std::lock_guard lock(mutex_);
    return failure_ ? -1 : offsets_.next();
  }

  void work(std::size_t slot) {
    const auto size = static_cast<std::size_t>(pattern_.request.value());
    std::byte* buffer = pages_.data() + slot * size;
    const double end = begin_ + pattern_.duration.value();
    double now = monotonic_seconds();
    while (true) {
      const std::int64_t offset = next_offset();
      if (offset < 0) return;
      const ssize_t moved = pattern_.direction == Direction::read
                                ? pread(pattern_.file, buffer, size, offset)
                                : pwrite(pattern_.file, buffer, size, offset);
      const int error = moved < 0 ? errno : 0;
      const double done = monotonic_seconds();
      if (!note(moved, error, done - now) || done >= end || interrupted()) return;
      now = done;
    }
  }

  // False where the request failed.
  bool note(ssize_t moved, int error, double latency) {
    const std::lock_guard lock(mutex_);
    if (moved != static_cast<ssize_t>(pattern_.request.value())) {
      if (!failure_) failure_ = io_error(pattern_, error, std::max<ssize_t>(0, moved));
      return false;
    }
    ++result_.requests;
    if (result_.latencies.size() < kMostLatencies)
      result_.latencies.push_back(static_cast<float>(latency));
    return true;
  }

  const IoPattern& pattern_;
  const Pages& pages_;
  double begin_ = 0;
  std::mutex mutex_;
  Offsets offsets_;  // this and what follows under the mutex
  IoResult result_;
  std::optional<Error> failure_;
};

class ThreadEngine : public IoEngine {
 public:
  [[nodiscard]] std::string name() const override { return "threads"; }
  [[nodiscard]] Result<IoResult> run(const IoPattern& pattern) override {
    STEELYARD_TRY(pages, Pages::map(pattern.request * pattern.depth, PageSize::huge));
    // Touched before the clock runs, and no page of zeros that a disk could leave out.
    std::uint64_t word = 0x9e3779b97f4a7c15ULL;
    for (std::uint64_t& at : pages.as<std::uint64_t>())
      at = word = word * 6364136223846793005ULL + 1;
    return ThreadRun(pattern, pages).go();
  }
};

}  // namespace

std::unique_ptr<IoEngine> make_thread_engine() {
  return std::make_unique<ThreadEngine>();
}

}  // namespace steelyard::probe
