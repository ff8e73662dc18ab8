// The first stage: records, in their order, from files into buffers.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "rehearse/order.h"
#include "rehearse/read/read_buffers.h"
#include "rehearse/rehearse.h"
#include "rehearse/stage_time.h"

namespace steelyard::rehearse {

// What the reading threads share with the rest of the rehearsal.
struct ReadContext {
  const Dataset& dataset;
  const Order& order;
  ReadBuffers& buffers;
  BoundedQueue<ReadItem>& ready;
  const std::atomic<bool>& stop;
  const Injection& injection;
  bool direct = false;
  std::int64_t most_depth = 32;
  StageTime& time;
  std::atomic<std::int64_t>& depth_reached;
  // A record that could not be read: errno, or 0 where the file ended too early.
  std::function<void(std::uint64_t record, int error)> fault;
  // Memory was refused, or the ring broke: the rehearsal cannot go on.
  std::function<void(Error)> broken;
  std::atomic<std::uint64_t> next{0};  // position in the order
};

// Threads that read; they end when `stop` is set and the buffers are closed.
class Reader {
 public:
  virtual ~Reader() = default;
  virtual void run() = 0;   // starts the threads
  virtual void join() = 0;  // after stop
};

// By io_uring with registered buffers and files: one thread. Errors: not_supported where the kernel
// refuses (ENOSYS, EPERM, ...), with its reason.
[[nodiscard]] Result<std::unique_ptr<Reader>> make_ring_reader(ReadContext& context);
// By threads that open, read and close.
[[nodiscard]] std::unique_ptr<Reader> make_thread_reader(ReadContext& context);

// Whether files of the data set can be read past the page cache at all.
[[nodiscard]] bool direct_works(const Dataset& dataset);

// The next record in its order with a buffer for it. Nothing at the end.
[[nodiscard]] std::optional<ReadItem> next_item(ReadContext& context, std::size_t slot,
                                                ThreadTime& time);
// `result` of a read as the kernel returns it: hands the item on, or counts a fault and gives its
// buffer back.
void finish_read(ReadContext& context, ReadItem&& item, std::int64_t result, ThreadTime& time);

}  // namespace steelyard::rehearse
