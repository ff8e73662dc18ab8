#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "rehearse/read/reader.h"

namespace steelyard::rehearse {
namespace {

constexpr std::int64_t kMostThreads = 16;

// As much of `wanted` as there is; -errno.
std::int64_t read_whole(int file, std::uint8_t* buffer, std::size_t wanted, std::uint64_t from) {
  std::size_t got = 0;
  while (got < wanted) {
    const ssize_t part = pread(file, buffer + got, wanted - got, static_cast<off_t>(from + got));
    if (part < 0 && errno == EINTR) continue;
    if (part < 0) return -errno;
    if (part == 0) break;
    got += static_cast<std::size_t>(part);
    if (got % kBlock != 0) break;  // the end of the file; a direct read could not go on from here
  }
  return static_cast<std::int64_t>(got);
}

class ThreadReader final : public Reader {
 public:
  explicit ThreadReader(ReadContext& context) : context_(context) {}

  void run() override {
    const std::int64_t slots = static_cast<std::int64_t>(context_.buffers.plan().count);
    const std::int64_t count =
        std::clamp<std::int64_t>(std::min(context_.most_depth, slots), 1, kMostThreads);
    context_.depth_reached = count;
    for (std::int64_t i = 0; i < count; ++i) threads_.emplace_back([this] { read_on(); });
  }
  void join() override { threads_.clear(); }

 private:
  void read_on();
  std::int64_t read(const ReadItem& item);

  ReadContext& context_;
  std::vector<std::jthread> threads_;
};

std::int64_t ThreadReader::read(const ReadItem& item) {
  const Record& record = context_.dataset.records[item.record];
  const int flags = O_RDONLY | O_CLOEXEC | (context_.direct ? O_DIRECT : 0);
  const int file = open(context_.dataset.files[record.file].c_str(), flags);
  if (file < 0) return -errno;
  const std::int64_t result = read_whole(file, item.buffer, item.wanted, item.from);
  close(file);
  return result;
}

void ThreadReader::read_on() {
  ThreadTime time;
  time.began = now();
  while (!context_.stop) {
    const auto slot = context_.buffers.slot(time.waited_for_room);
    if (!slot) break;
    auto item = next_item(context_, *slot, time);
    if (!item) break;
    const std::int64_t result = read(*item);
    finish_read(context_, std::move(*item), result, time);
  }
  context_.time.add(time);
}

}  // namespace

std::unique_ptr<Reader> make_thread_reader(ReadContext& context) {
  return std::make_unique<ThreadReader>(context);
}

}  // namespace steelyard::rehearse
