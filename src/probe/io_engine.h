// Keeping a number of requests to one file in flight: by io_uring, or by as many threads where the
// kernel or a container forbids io_uring.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/quantity.h"

namespace steelyard::probe {

enum class Direction { read, write };
enum class Order { sequential, random };

struct IoPattern {
  int file = -1;
  Direction direction = Direction::read;
  Order order = Order::sequential;
  Bytes request{};
  std::int64_t depth = 1;
  Bytes begin{};  // of the range in the file, and its end; whole requests
  Bytes end{};
  // Ends after so long, what is in flight included; a sequential pattern begins anew at its end
  // unless `once`.
  Seconds duration = Seconds(1);
  bool once = false;
  std::int64_t first = 0;  // request of the range with which a sequential order begins
  std::uint64_t seed = 1;  // of a random order
};

struct IoResult {
  Bytes moved{};
  std::int64_t requests = 0;
  Seconds elapsed{};
  std::vector<float> latencies{};  // seconds, one per request, at most kMostLatencies
};

inline constexpr std::size_t kMostLatencies = 1 << 17;

class IoEngine {
 public:
  virtual ~IoEngine() = default;
  [[nodiscard]] virtual std::string name() const = 0;  // "io_uring", "threads"
  // Fails with what the kernel said about the first request that failed or fell short.
  [[nodiscard]] virtual Result<IoResult> run(const IoPattern& pattern) = 0;
  // What was done without: "buffers are not registered (...)".
  [[nodiscard]] virtual std::vector<std::string> remarks() const { return {}; }
};

// What sets up a ring; returns 0 or a negative errno, as io_uring_queue_init does.
using RingProbe = std::function<int()>;
// The real one: makes a ring and takes it down again.
[[nodiscard]] int try_io_uring();

// io_uring, or where `probe` says that it is forbidden (ENOSYS, EPERM, ...) threads, and in
// `reason` why.
[[nodiscard]] std::unique_ptr<IoEngine> make_io_engine(std::string& reason,
                                                       const RingProbe& probe = try_io_uring);
[[nodiscard]] std::unique_ptr<IoEngine> make_uring_engine();
[[nodiscard]] std::unique_ptr<IoEngine> make_thread_engine();

// Where the next request of a pattern lies; not for several threads.
class Offsets {
 public:
  explicit Offsets(const IoPattern& pattern);
  // Negative when a pattern that goes once is through.
  [[nodiscard]] std::int64_t next();

 private:
  const IoPattern& pattern_;
  std::int64_t count_;  // of requests in the range
  std::int64_t issued_ = 0;
  std::uint64_t state_;
};

[[nodiscard]] Error io_error(const IoPattern& pattern, int error, std::int64_t moved);

}  // namespace steelyard::probe
