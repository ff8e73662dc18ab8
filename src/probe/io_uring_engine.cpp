#include <fmt/format.h>
#include <liburing.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "probe/interruption.h"
#include "probe/io_engine.h"
#include "probe/pages.h"
#include "probe/repeat.h"

namespace steelyard::probe {

namespace {

// A ring that goes away with its owner.
class Ring {
 public:
  // Flags that newer kernels have and that save wake-ups between tasks; without them where refused.
  explicit Ring(unsigned entries) {
    constexpr unsigned kWanted = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN;
    status_ = io_uring_queue_init(entries, &ring_, kWanted);
    if (status_ == -EINVAL) status_ = io_uring_queue_init(entries, &ring_, 0);
  }
  ~Ring() {
    if (status_ == 0) io_uring_queue_exit(&ring_);
  }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  [[nodiscard]] int status() const { return status_; }
  [[nodiscard]] io_uring* get() { return &ring_; }

 private:
  io_uring ring_{};
  int status_ = 0;
};

// One run of one pattern.
class Run {
 public:
  Run(const IoPattern& pattern, io_uring* ring, const Pages& pages)
      : pattern_(pattern), ring_(ring), data_(pages.data()), offsets_(pattern) {
    begins_.resize(static_cast<std::size_t>(pattern.depth));
  }

  // Null where the kernel took them, otherwise why the run goes without.
  [[nodiscard]] const char* register_what_it_uses() {
    fixed_file_ = io_uring_register_files(ring_, &pattern_.file, 1) == 0;
    std::vector<iovec> buffers;
    for (std::int64_t slot = 0; slot < pattern_.depth; ++slot)
      buffers.push_back({.iov_base = buffer(static_cast<std::size_t>(slot)),
                         .iov_len = static_cast<std::size_t>(pattern_.request.value())});
    const int status =
        io_uring_register_buffers(ring_, buffers.data(), static_cast<unsigned>(buffers.size()));
    fixed_buffers_ = status == 0;
    return fixed_buffers_ ? nullptr : std::strerror(-status);
  }

  [[nodiscard]] Result<IoResult> go() {
    const double begin = monotonic_seconds();
    const double end = begin + pattern_.duration.value();
    now_ = begin;
    for (std::size_t slot = 0; slot < begins_.size(); ++slot) submit(slot);
    while (in_flight_ > 0) {
      const int status = wait_for_one();
      if (status < 0 && status != -EINTR) return fail(io_error(pattern_, -status, 0));
      now_ = monotonic_seconds();
      reap(!failure_ && now_ < end && !interrupted());
    }
    if (failure_) return fail(*failure_);
    result_.elapsed = Seconds(now_ - begin);
    result_.moved = pattern_.request * result_.requests;
    return std::move(result_);
  }

 private:
  [[nodiscard]] std::byte* buffer(std::size_t slot) const {
    return data_ + slot * static_cast<std::size_t>(pattern_.request.value());
  }

  // Looks for a while before it sleeps: a processor that nothing else keeps awake goes to sleep
  // with its thread and takes microseconds to come back (a virtual one asks its host), which is no
  // time of the disk's and none that a loader pays whose other threads decode meanwhile.
  [[nodiscard]] int wait_for_one() {
    constexpr double kAwake = 100e-6;  // seconds: longer than a fast drive's 4 KiB take
    int status = io_uring_submit(ring_);
    const double sleeps = monotonic_seconds() + kAwake;
    while (status >= 0 && io_uring_cq_ready(ring_) == 0) {
      if (monotonic_seconds() >= sleeps) return io_uring_submit_and_wait(ring_, 1);
      status = io_uring_get_events(ring_);
    }
    return status;
  }

  void submit(std::size_t slot) {
    const std::int64_t offset = offsets_.next();
    if (offset < 0) return;
    io_uring_sqe* entry = io_uring_get_sqe(ring_);
    const auto size = static_cast<unsigned>(pattern_.request.value());
    const auto at = static_cast<std::uint64_t>(offset);
    const int file = fixed_file_ ? 0 : pattern_.file;
    const bool reads = pattern_.direction == Direction::read;
    if (fixed_buffers_ && reads) {
      io_uring_prep_read_fixed(entry, file, buffer(slot), size, at, static_cast<int>(slot));
    } else if (fixed_buffers_) {
      io_uring_prep_write_fixed(entry, file, buffer(slot), size, at, static_cast<int>(slot));
    } else if (reads) {
      io_uring_prep_read(entry, file, buffer(slot), size, at);
    } else {
      io_uring_prep_write(entry, file, buffer(slot), size, at);
    }
    if (fixed_file_) entry->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(entry, slot);
    begins_[slot] = now_;
    ++in_flight_;
  }

  void reap(bool more) {
    unsigned head = 0;
    unsigned seen = 0;
    bool waits = false;  // a request that the kernel does not have yet
    io_uring_cqe* done = nullptr;
    io_uring_for_each_cqe(ring_, head, done) {
      ++seen;
      --in_flight_;
      const auto slot = static_cast<std::size_t>(io_uring_cqe_get_data64(done));
      const bool whole = done->res == static_cast<int>(pattern_.request.value());
      if (!whole && !failure_)
        failure_ = io_error(pattern_, std::max(0, -done->res), std::max(0, done->res));
      if (result_.latencies.size() < kMostLatencies)
        result_.latencies.push_back(static_cast<float>(now_ - begins_[slot]));
      ++result_.requests;
      if (!more || !whole) continue;
      // Each at once, the last one with the next wait: a device that gets its requests in lots
      // idles in between (virtio, 4 KiB, 16 in flight: 68,000 a second instead of 83,000).
      if (waits) (void)io_uring_submit(ring_);
      submit(slot);
      waits = true;
    }
    io_uring_cq_advance(ring_, seen);
  }

  const IoPattern& pattern_;
  io_uring* ring_;
  std::byte* data_;
  Offsets offsets_;
  std::vector<double> begins_;
  double now_ = 0;
  std::int64_t in_flight_ = 0;
  bool fixed_file_ = false;
  bool fixed_buffers_ = false;
  IoResult result_;
  std::optional<Error> failure_;
};

// Data that no compressing or deduplicating disk makes smaller.
void fill_with_noise(const Pages& pages) {
  std::uint64_t state = 88172645463325252ULL;
  for (std::uint64_t& word : pages.as<std::uint64_t>()) {
    // xorshift64 (Marsaglia 2003).
    state ^= state << 13U;
    state ^= state >> 7U;
    state ^= state << 17U;
    word = state;
  }
}

class UringEngine : public IoEngine {
 public:
  [[nodiscard]] std::string name() const override { return "io_uring"; }
  [[nodiscard]] std::vector<std::string> remarks() const override {
    if (unregistered_.empty()) return {};
    return {fmt::format("buffers were not registered with the kernel ({}): raise ulimit -l",
                        unregistered_)};
  }

  [[nodiscard]] Result<IoResult> run(const IoPattern& pattern) override {
    const Bytes needed = pattern.request * pattern.depth;
    if (!pages_ || Bytes(static_cast<std::int64_t>(pages_->size())) < needed) {
      STEELYARD_TRY(pages, Pages::map(needed, PageSize::huge));
      pages_ = std::move(pages);
      fill_with_noise(*pages_);
    }
    Ring ring(static_cast<unsigned>(pattern.depth));
    if (ring.status() != 0) return fail(io_error(pattern, -ring.status(), 0));
    Run one(pattern, ring.get(), *pages_);
    if (const char* why = one.register_what_it_uses()) unregistered_ = why;
    return one.go();
  }

 private:
  std::optional<Pages> pages_;
  std::string unregistered_;
};

}  // namespace

int try_io_uring() {
  Ring ring(2);
  return ring.status();
}

std::unique_ptr<IoEngine> make_uring_engine() {
  return std::make_unique<UringEngine>();
}

}  // namespace steelyard::probe
