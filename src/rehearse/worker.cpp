#include "rehearse/worker.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace steelyard::rehearse {
namespace {

bool is_image(Encoding encoding) {
  return encoding == Encoding::jpeg || encoding == Encoding::png;
}

// A raw deflate stream: inflated into the sample as far as it has room, checked to its end.
OrFlaw<void> inflate_into(std::span<const std::uint8_t> bytes, std::uint8_t* sample,
                          std::size_t room) {
  z_stream stream{};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) return std::unexpected<Flaw>("zlib cannot start");
  std::array<std::uint8_t, 65536> rest;  // what the sample has no room for
  stream.next_in = const_cast<std::uint8_t*>(bytes.data());
  stream.avail_in = static_cast<unsigned>(std::min<std::size_t>(bytes.size(), UINT32_MAX));
  stream.next_out = sample;
  stream.avail_out = static_cast<unsigned>(std::min<std::size_t>(room, UINT32_MAX));
  int state = Z_OK;
  while (state == Z_OK) {
    if (stream.avail_out == 0) {
      stream.next_out = rest.data();
      stream.avail_out = static_cast<unsigned>(rest.size());
    }
    state = inflate(&stream, Z_NO_FLUSH);
  }
  inflateEnd(&stream);
  if (state != Z_STREAM_END) return std::unexpected<Flaw>("deflate: the stream is broken");
  return {};
}

class Worker {
 public:
  explicit Worker(WorkContext& context)
      : context_(context), maker_(context.shape, context.scaled_decode) {}

  void run();

 private:
  OrFlaw<void> make(const ReadItem& item, std::uint8_t* sample);

  WorkContext& context_;
  SampleMaker maker_;
};

OrFlaw<void> Worker::make(const ReadItem& item, std::uint8_t* sample) {
  const Dataset& dataset = context_.dataset;
  const std::span<const std::uint8_t> bytes = item.bytes(dataset.records[item.record]);
  if (is_image(dataset.encoding)) {
    const std::uint64_t epoch = context_.order.epoch(item.position);
    const std::uint64_t seed =
        Random::mixed(context_.seed ^ Random::mixed(epoch * 0x9e3779b97f4a7c15U + item.record));
    return maker_.make(bytes, seed, sample);
  }
  if (!dataset.deflated.empty() && dataset.deflated[item.record]) {
    return inflate_into(bytes, sample, context_.sample_bytes);
  }
  std::memcpy(sample, bytes.data(), std::min(bytes.size(), context_.sample_bytes));
  return {};
}

void Worker::run() {
  ThreadTime time;
  time.began = now();
  std::int64_t accounted = 0;
  for (;;) {
    auto item = context_.ready.pop(time.waited_for_data);
    if (!item) break;
    const auto place = context_.batches.claim(time.waited_for_room);
    if (!place) {
      context_.buffers.give_back(*item);
      break;
    }
    // A place that was claimed is filled: where a record is broken, by the next one.
    bool made = false;
    while (item && !made) {
      const auto result = make(*item, place->sample);
      const std::uint64_t record = item->record;
      context_.buffers.give_back(*item);
      made = result.has_value();
      if (made) break;
      context_.flaw(record, result.error());
      item = context_.ready.pop(time.waited_for_data);
    }
    if (!made) break;
    ++time.done;
    context_.good();
    context_.batches.written(*place);
    if (maker_.held() > accounted) {
      context_.ledger.add(Kind::decoding, maker_.held() - accounted);
      accounted = maker_.held();
    }
  }
  context_.time.add(time);
}

}  // namespace

std::size_t sample_bytes_of(const Dataset& dataset, const SampleShape& shape) {
  if (is_image(dataset.encoding)) return shape.bytes();
  std::uint64_t largest = 1;
  for (const Record& record : dataset.records) largest = std::max(largest, record.bytes);
  // Whole cache lines: no two workers write to one.
  return static_cast<std::size_t>((largest + 63) / 64 * 64);
}

void run_worker(WorkContext& context) {
  Worker(context).run();
}

}  // namespace steelyard::rehearse
