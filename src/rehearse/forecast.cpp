// What a rehearsal will take of memory, told before it takes anything.
#include <algorithm>
#include <string>

#include "rehearse/host_memory.h"
#include "rehearse/pages.h"
#include "rehearse/read/read_buffers.h"
#include "rehearse/summary.h"
#include "rehearse/worker.h"

namespace steelyard::rehearse {
namespace {

constexpr std::int64_t kMost = 1'000'000;  // of anything that is counted

// Of a decoding thread: rows between decoding and resizing, the libraries' tables and pools, its
// heap (glibc gives every thread one of its own).
constexpr Bytes kPerWorker = Bytes(1 << 20);
// Of any thread: the touched part of its stack, its control block.
constexpr Bytes kPerThread = Bytes(64 << 10);
constexpr std::int64_t kOtherThreads = 2;

Bytes index_of(const Dataset& dataset) {
  std::int64_t bytes = static_cast<std::int64_t>(dataset.records.capacity() * sizeof(Record) +
                                                 dataset.files.capacity() * sizeof(std::string) +
                                                 dataset.deflated.capacity() / 8);
  for (const std::string& file : dataset.files) {
    if (file.capacity() > std::string().capacity()) {
      bytes += static_cast<std::int64_t>(file.capacity() + 1);
    }
  }
  return Bytes(bytes);
}

Result<void> in_range(const char* what, std::int64_t value) {
  if (value >= 1 && value <= kMost) return {};
  return fail({.code = ErrorCode::bad_input,
               .subject = what,
               .found = std::to_string(value),
               .accepted = "a whole number from 1 to " + std::to_string(kMost)});
}

Result<void> check(const Dataset& dataset, const Settings& settings) {
  STEELYARD_CHECK(in_range("--accelerators", settings.accelerators));
  STEELYARD_CHECK(in_range("--batch", settings.batch));
  STEELYARD_CHECK(in_range("--workers", settings.workers));
  STEELYARD_CHECK(in_range("--prefetch", settings.prefetch));
  STEELYARD_CHECK(in_range("--depth", settings.most_depth));
  STEELYARD_CHECK(in_range("--side", settings.shape.side));
  if (dataset.records.empty()) {
    return fail({.code = ErrorCode::impossible_combination,
                 .subject = "the data set has no records",
                 .hint = "is it the right folder?"});
  }
  return {};
}

}  // namespace

std::size_t slots_of(const Settings& settings) {
  // One for each worker to decode from, the rest to read into.
  return static_cast<std::size_t>(settings.workers + settings.most_depth);
}

std::size_t batches_of(const Settings& settings) {
  return static_cast<std::size_t>(settings.prefetch * settings.accelerators);
}

Result<Forecast> forecast(const Dataset& dataset, const Settings& settings) {
  STEELYARD_CHECK(check(dataset, settings));
  const SlotPlan slots = plan_slots(dataset, slots_of(settings), settings.direct);
  const std::size_t sample = sample_bytes_of(dataset, settings.shape);
  const HostMemory host;
  Forecast forecast;
  forecast.index = index_of(dataset);
  forecast.read_buffers =
      Bytes(static_cast<std::int64_t>(in_pages(slots.count * slots.bytes) + slots.large_bytes));
  const Bytes batches =
      Bytes(static_cast<std::int64_t>(sample)) *
      checked_multiply(static_cast<std::int64_t>(batches_of(settings)), settings.batch);
  forecast.batches = Bytes(static_cast<std::int64_t>(in_pages(std::size_t(batches.value()))));
  forecast.decoding =
      kPerWorker * settings.workers + kPerThread * (settings.accelerators + kOtherThreads);
  forecast.program = std::max(Bytes(0), host.read().anonymous.value_or(Bytes(0)) - forecast.index);
  const auto limit = host.limit();
  if (limit) {
    forecast.limit = limit->bytes;
    forecast.limited_by = limit->whose;
  }
  if (settings.memory_limit && (!limit || *settings.memory_limit < limit->bytes)) {
    forecast.limit = settings.memory_limit;
    forecast.limited_by = kOwnLimit;
  }
  return forecast;
}

}  // namespace steelyard::rehearse
