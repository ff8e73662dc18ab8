// Reading by io_uring (Axboe: Efficient IO with io_uring, 2019): buffers are mapped into the kernel
// once, files are opened into its own table, and one thread keeps many reads under way.
//
// Few files: all are opened at the start. Many (a file per record): each record is a chain of open,
// read and close in the kernel, without a system call for each.
#include <fcntl.h>
#include <liburing.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "rehearse/read/reader.h"

namespace steelyard::rehearse {
namespace {

constexpr std::size_t kMostKeptOpen = 512;  // files; the usual limit of a process is 1024
constexpr std::int64_t kFirstDepth = 4;
constexpr std::int64_t kCalm = 64;  // reads in a row without a hungry worker: one less at a time

enum class Step : std::uint64_t { open, read, close };

// One slot's request.
struct Flight {
  ReadItem item;
  int steps_left = 0;
  std::int64_t result = 0;  // of the read, or of the open that failed
};

class RingReader final : public Reader {
 public:
  explicit RingReader(ReadContext& context)
      : context_(context), flights_(context.buffers.plan().count) {}
  RingReader(const RingReader&) = delete;
  RingReader& operator=(const RingReader&) = delete;
  ~RingReader() override {
    if (started_) io_uring_queue_exit(&ring_);
    for (const int file : files_) {
      if (file >= 0) close(file);
    }
  }

  Result<void> start();
  void run() override {
    thread_ = std::jthread([this] { read_on(); });
  }
  void join() override {
    if (thread_.joinable()) thread_.join();
  }

 private:
  Result<void> register_files();
  void read_on();
  bool submit(std::size_t slot, ThreadTime& time);
  bool wait_for_one();
  void completed(const io_uring_cqe& entry, ThreadTime& time);
  void adapt();

  ReadContext& context_;
  io_uring ring_{};
  bool started_ = false;
  bool fixed_buffers_ = false;
  std::vector<int> files_;        // kept open, by number; empty: one chain per record
  std::vector<int> open_errors_;  // errno of those that could not be opened
  std::vector<Flight> flights_;
  std::int64_t under_way_ = 0, depth_ = kFirstDepth, calm_ = 0;
  std::jthread thread_;
};

Error refused(const char* what, int error) {
  return {.code = ErrorCode::not_supported, .subject = what, .found = std::strerror(error)};
}

Result<void> RingReader::start() {
  const std::size_t slots = flights_.size();
  if (const int error = context_.injection.ring_error; error != 0) {
    return fail(refused("io_uring", error));
  }
  // Three entries for a chain; a refused flag is no reason to do without the ring.
  const auto entries = static_cast<unsigned>(slots * 3);
  if (const int error = -io_uring_queue_init(entries, &ring_, 0); error != 0) {
    return fail(refused("io_uring", error));
  }
  started_ = true;
  std::vector<iovec> memory(slots);
  for (std::size_t i = 0; i < slots; ++i) {
    memory[i] = {context_.buffers.slot_memory(i), context_.buffers.plan().bytes};
  }
  // Refused where locked memory is limited (RLIMIT_MEMLOCK): then the kernel maps at every read.
  fixed_buffers_ =
      io_uring_register_buffers(&ring_, memory.data(), static_cast<unsigned>(slots)) == 0;
  return register_files();
}

Result<void> RingReader::register_files() {
  const Dataset& dataset = context_.dataset;
  const bool chains =
      dataset.files.size() > kMostKeptOpen || dataset.records.size() <= dataset.files.size();
  if (chains) {
    const int error =
        -io_uring_register_files_sparse(&ring_, static_cast<unsigned>(flights_.size()));
    if (error != 0) return fail(refused("io_uring without a table of files", error));
    return {};
  }
  const int flags = O_RDONLY | O_CLOEXEC | (context_.direct ? O_DIRECT : 0);
  for (const std::string& name : dataset.files) {
    const int file = open(name.c_str(), flags);
    files_.push_back(file);
    open_errors_.push_back(file < 0 ? errno : 0);
  }
  const int error =
      -io_uring_register_files(&ring_, files_.data(), static_cast<unsigned>(files_.size()));
  if (error != 0) return fail(refused("io_uring without a table of files", error));
  return {};
}

// Puts the reading of the next record into the ring; false when the rehearsal must end.
bool RingReader::submit(std::size_t slot, ThreadTime& time) {
  auto item = next_item(context_, slot, time);
  if (!item) return false;
  const Record& record = context_.dataset.records[item->record];
  const bool chain = files_.empty();
  const auto index = static_cast<unsigned>(chain ? slot : record.file);
  if (!chain && files_[record.file] < 0) {
    finish_read(context_, std::move(*item), -open_errors_[record.file], time);
    return true;
  }
  const bool fixed = fixed_buffers_ && item->large.data() == nullptr;
  const auto wanted = static_cast<unsigned>(std::min<std::size_t>(item->wanted, 0x7ffff000U));
  if (chain) {
    const int flags = O_RDONLY | (context_.direct ? O_DIRECT : 0);
    io_uring_sqe* open = io_uring_get_sqe(&ring_);
    io_uring_prep_openat_direct(open, AT_FDCWD, context_.dataset.files[record.file].c_str(), flags,
                                0, index);
    open->user_data = slot * 4 + static_cast<std::uint64_t>(Step::open);
    open->flags |= IOSQE_IO_LINK;
  }
  io_uring_sqe* read = io_uring_get_sqe(&ring_);
  if (fixed) {
    io_uring_prep_read_fixed(read, static_cast<int>(index), item->buffer, wanted, item->from,
                             static_cast<int>(slot));
  } else {
    io_uring_prep_read(read, static_cast<int>(index), item->buffer, wanted, item->from);
  }
  read->user_data = slot * 4 + static_cast<std::uint64_t>(Step::read);
  read->flags |= IOSQE_FIXED_FILE;
  if (chain) {
    read->flags |= IOSQE_IO_HARDLINK;  // a short or failed read is closed all the same
    io_uring_sqe* close = io_uring_get_sqe(&ring_);
    io_uring_prep_close_direct(close, index);
    close->user_data = slot * 4 + static_cast<std::uint64_t>(Step::close);
  }
  flights_[slot] = {.item = std::move(*item), .steps_left = chain ? 3 : 1, .result = 0};
  ++under_way_;
  context_.depth_reached = std::max(context_.depth_reached.load(), under_way_);
  return true;
}

// More at once while workers wait for records, fewer when none did for a while.
void RingReader::adapt() {
  const std::int64_t most =
      std::min(context_.most_depth, static_cast<std::int64_t>(flights_.size()));
  if (context_.ready.waiting() > 0) {
    depth_ = std::min(depth_ + 1, most);
    calm_ = 0;
  } else if (++calm_ >= kCalm) {
    depth_ = std::max<std::int64_t>(depth_ - 1, std::min<std::int64_t>(2, most));
    calm_ = 0;
  }
}

void RingReader::completed(const io_uring_cqe& entry, ThreadTime& time) {
  const auto slot = static_cast<std::size_t>(entry.user_data / 4);
  const auto step = static_cast<Step>(entry.user_data % 4);
  Flight& flight = flights_[slot];
  if (step == Step::open && entry.res < 0) flight.result = entry.res;
  // Behind a failed open the read is cancelled: the open says why.
  if (step == Step::read && !(entry.res == -ECANCELED && flight.result < 0)) {
    flight.result = entry.res;
  }
  if (--flight.steps_left > 0) return;
  --under_way_;
  adapt();
  finish_read(context_, std::move(flight.item), flight.result, time);
}

// Submits what is prepared and waits for at least one completion; false when the ring broke.
bool RingReader::wait_for_one() {
  for (;;) {
    const int result = io_uring_submit_and_wait(&ring_, 1);
    if (result >= 0) return true;
    if (result == -EINTR || result == -EAGAIN || result == -EBUSY) continue;
    context_.broken(refused("io_uring stopped to work", -result));
    return false;
  }
}

void RingReader::read_on() {
  ThreadTime time;
  time.began = now();
  bool open = true;
  while (open || under_way_ > 0) {
    open = open && !context_.stop;
    while (open && under_way_ < depth_) {
      // With nothing under way there is nothing else to do than to wait for room.
      const auto slot = under_way_ == 0 ? context_.buffers.slot(time.waited_for_room)
                                        : context_.buffers.try_slot();
      if (!slot) {
        open = open && under_way_ > 0;
        break;
      }
      open = submit(*slot, time);
    }
    if (under_way_ == 0) continue;
    if (!wait_for_one()) break;
    unsigned head = 0, count = 0;
    io_uring_cqe* entry = nullptr;
    io_uring_for_each_cqe(&ring_, head, entry) {
      completed(*entry, time);
      ++count;
    }
    io_uring_cq_advance(&ring_, count);
  }
  context_.time.add(time);
}

}  // namespace

Result<std::unique_ptr<Reader>> make_ring_reader(ReadContext& context) {
  auto reader = std::make_unique<RingReader>(context);
  STEELYARD_CHECK(reader->start());
  return std::unique_ptr<Reader>(std::move(reader));
}

}  // namespace steelyard::rehearse
