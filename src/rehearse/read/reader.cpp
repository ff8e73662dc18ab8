#include "rehearse/read/reader.h"

#include <fcntl.h>
#include <unistd.h>

namespace steelyard::rehearse {

std::optional<ReadItem> next_item(ReadContext& context, std::size_t slot, ThreadTime& time) {
  ReadItem item;
  item.slot = slot;
  item.position = context.next.fetch_add(1, std::memory_order_relaxed);
  item.record = context.order.at(item.position);
  const Record& record = context.dataset.records[item.record];
  auto prepared = context.buffers.prepare(item, record, context.direct, time.waited_for_room);
  if (!prepared) {
    context.broken(std::move(prepared).error());
    return std::nullopt;
  }
  return item;
}

void finish_read(ReadContext& context, ReadItem&& item, std::int64_t result, ThreadTime& time) {
  if (context.injection.read_delay) {
    const timespec delay{.tv_sec = 0,
                         .tv_nsec = nanoseconds(context.injection.read_delay(item.record))};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &delay, nullptr);
  }
  if (context.injection.read_error) {
    if (const int error = context.injection.read_error(item.record); error != 0) result = -error;
  }
  const Record& record = context.dataset.records[item.record];
  const bool whole = result >= 0 && static_cast<std::uint64_t>(result) >= item.skip + record.bytes;
  if (whole) {
    ++time.done;
    time.bytes += static_cast<std::int64_t>(record.bytes);
    context.ready.push(std::move(item));
    return;
  }
  const std::uint64_t which = item.record;
  context.buffers.give_back(item);
  context.fault(which, result < 0 ? static_cast<int>(-result) : 0);
}

bool direct_works(const Dataset& dataset) {
  const int file =
      open(dataset.files[dataset.records.front().file].c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  if (file < 0) return false;
  close(file);
  return true;
}

}  // namespace steelyard::rehearse
