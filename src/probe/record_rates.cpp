#include "probe/record_rates.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "probe/interruption.h"
#include "probe/repeat.h"
#include "rehearse/rehearse.h"

namespace steelyard::probe {

namespace {

using namespace literals;

constexpr std::size_t kRounds = 3;
constexpr Seconds kShortest{0.05};
// A batch of large records: beyond any core's own cache, as batches of a training are.
constexpr Bytes kBatch = 8_MiB;
constexpr std::int64_t kMostRecords = 64;  // of a batch
constexpr std::int64_t kAhead = 3;         // batches

struct Task {
  RecordRate figure;
  std::vector<double> rates{};  // bytes per second
};

rehearse::Dataset records_of(const RecordOptions& options, Bytes size) {
  rehearse::Dataset dataset;
  dataset.files = {fmt::format("/proc/self/fd/{}", options.file)};
  dataset.encoding = rehearse::Encoding::raw;
  dataset.format = "raw";
  const auto bytes = static_cast<std::uint64_t>(size.value());
  const auto end = static_cast<std::uint64_t>(options.range.value());
  for (std::uint64_t at = 0; at + bytes <= end; at += bytes) {
    dataset.records.push_back({.file = 0, .offset = at, .bytes = bytes});
  }
  dataset.total = size * static_cast<std::int64_t>(dataset.records.size());
  return dataset;
}

std::optional<double> rate_of(const rehearse::Dataset& dataset, const RecordRate& figure,
                              Seconds length) {
  const std::int64_t fit = kBatch.value() / figure.record.value();
  const rehearse::Settings settings{.accelerators = 1,
                                    .batch = std::clamp<std::int64_t>(fit, 4, kMostRecords),
                                    .workers = figure.workers,
                                    .prefetch = kAhead,
                                    .duration = length};
  const auto done =
      rehearse::rehearse(dataset, settings, [](const rehearse::Progress&) { return true; });
  if (!done || done->rate.value() <= 0) return std::nullopt;
  return done->rate.value() * figure.record.real();
}

}  // namespace

std::vector<RecordRate> measure_records(const RecordOptions& options) {
  std::vector<std::int64_t> crews = {1};
  if (options.threads > 1) crews.push_back(options.threads);
  std::vector<Task> tasks;
  for (const Bytes size : {8_KiB, 256_KiB, 1_MiB}) {
    if (size * 8 > options.range) continue;
    for (const std::int64_t crew : crews) tasks.push_back({{.record = size, .workers = crew}});
  }
  const auto runs = static_cast<double>(kRounds * tasks.size());
  const Seconds length = std::max(kShortest, options.budget / std::max(1.0, runs));
  for (std::size_t round = 0; round < kRounds; ++round) {
    for (Task& task : tasks) {
      if (interrupted()) return {};
      const rehearse::Dataset dataset = records_of(options, task.figure.record);
      if (const auto rate = rate_of(dataset, task.figure, length)) task.rates.push_back(*rate);
    }
  }
  std::vector<RecordRate> figures;
  for (Task& task : tasks) {
    task.figure.rate = measured<BytesPerSecond>(
        task.rates, fmt::format("records of {} from the page cache into batches: one thread reads, "
                                "{} cop{}",
                                to_text(task.figure.record), task.figure.workers,
                                task.figure.workers == 1 ? "ies" : "y"));
    figures.push_back(std::move(task.figure));
  }
  return figures;
}

}  // namespace steelyard::probe
