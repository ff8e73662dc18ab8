#include "probe/storage_rates.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "base/format.h"
#include "probe/crew.h"
#include "probe/interruption.h"
#include "probe/record_rates.h"
#include "probe/repeat.h"

namespace steelyard::probe {

namespace {

using namespace literals;
using facts::StorageMeasurements;
using facts::StoragePattern;
using facts::StorageRate;

// Below this a run has no time for the full table of sizes and depths.
constexpr Seconds kForFullTable{6};
// Shares of the time; what is left goes to the reads by size and depth.
constexpr double kShareOfWriting = 0.35;
constexpr double kShareOfSmallFiles = 0.10;
constexpr double kShareOfCachedRead = 0.05;
constexpr double kShareOfRecords = 0.15;
constexpr std::int64_t kSegments = 8;  // of the test file, each one run of the write
constexpr std::int64_t kSlices = 4;    // runs of one figure

struct Combination {
  StoragePattern pattern;
  Bytes request;
  std::int64_t depth;
};

std::vector<Combination> combinations(Seconds budget) {
  const bool full = budget >= kForFullTable;
  const std::vector<Bytes> sequential =
      full ? std::vector{128_KiB, 512_KiB, 1_MiB, 4_MiB} : std::vector{1_MiB};
  const std::vector<Bytes> random =
      full ? std::vector{4_KiB, 64_KiB, 128_KiB} : std::vector{4_KiB, 128_KiB};
  std::vector<Combination> all;
  for (const Bytes request : sequential) {
    for (const std::int64_t depth :
         full ? std::vector<std::int64_t>{1, 4, 16} : std::vector<std::int64_t>{1, 8})
      all.push_back({StoragePattern::sequential_read, request, depth});
  }
  for (const Bytes request : random) {
    for (const std::int64_t depth :
         full ? std::vector<std::int64_t>{1, 4, 16, 64} : std::vector<std::int64_t>{1, 32})
      all.push_back({StoragePattern::random_read, request, depth});
  }
  return all;
}

void take_latencies(StorageRate& rate, std::vector<float>& latencies) {
  if (latencies.empty()) return;
  std::sort(latencies.begin(), latencies.end());
  const auto at = [&](double share) {
    return Seconds(
        latencies[static_cast<std::size_t>(share * static_cast<double>(latencies.size() - 1))]);
  };
  rate.latency_median = at(0.5);
  rate.latency_p99 = at(0.99);
}

class StorageMeter {
 public:
  StorageMeter(const StorageOptions& options, TestFile file, Bytes size, StorageMeasurements& seen)
      : options_(options), file_(std::move(file)), size_(size), seen_(seen) {
    std::string reason;
    engine_ = make_io_engine(reason, options.ring);
    if (!reason.empty()) seen_.warnings.push_back(reason);
    seen_.engine = engine_->name();
    seen_.direct = file_.direct();
  }

  // Fills the file segment by segment; a slow disk gets a smaller file.
  [[nodiscard]] Result<void> write() {
    STEELYARD_CHECK(file_.reserve(size_));
    const Bytes segment(size_.value() / kSegments);
    const double begin = monotonic_seconds();
    const double end = begin + kShareOfWriting * options_.budget.value();
    std::vector<double> rates;
    IoPattern pattern{.file = file_.descriptor(),
                      .direction = Direction::write,
                      .request = std::min(1_MiB, segment),
                      .depth = 8,
                      .duration = Seconds(3600),
                      .once = true};
    for (std::int64_t i = 0; i < kSegments; ++i) {
      // Less would hold too few of the largest requests.
      if (filled_ >= kSmallestTestFile && monotonic_seconds() > end) break;
      pattern.begin = segment * i;
      pattern.end = segment * (i + 1);
      const double started = monotonic_seconds();
      STEELYARD_TRY(written, engine_->run(pattern));
      STEELYARD_CHECK(file_.sync());
      if (interrupted()) return fail(interruption_error());
      rates.push_back(written.moved.real() / (monotonic_seconds() - started));
      filled_ = pattern.end;
    }
    seen_.test_file = filled_;
    StorageRate rate{.pattern = StoragePattern::sequential_write,
                     .request = pattern.request,
                     .depth = pattern.depth};
    rate.rate = measured<BytesPerSecond>(
        rates, fmt::format("a new file of {} in segments of {}, each with fdatasync, {}",
                           to_text(filled_), to_text(segment), through()));
    finish(std::move(rate));
    return {};
  }

  [[nodiscard]] Result<void> read(const Combination& combination, Seconds budget) {
    IoPattern pattern{.file = file_.descriptor(),
                      .order = combination.pattern == StoragePattern::random_read
                                   ? Order::random
                                   : Order::sequential,
                      .request = combination.request,
                      .depth = combination.depth,
                      .end = filled_,
                      .duration = budget / static_cast<double>(kSlices)};
    std::vector<float> latencies;
    std::optional<Error> failure;
    const std::vector<double> rates = repeat(
        [&]() -> std::optional<double> {
          if (!file_.direct()) file_.forget_pages();
          ++pattern.seed;
          Result<IoResult> result = engine_->run(pattern);
          if (!result) {
            failure = result.error();
            return std::nullopt;
          }
          pattern.first += result->requests;
          latencies.insert(latencies.end(), result->latencies.begin(), result->latencies.end());
          return result->moved.real() / result->elapsed.value();
        },
        {.budget = budget});
    if (failure) return fail(*failure);
    StorageRate rate{
        .pattern = combination.pattern, .request = combination.request, .depth = combination.depth};
    rate.rate = measured<BytesPerSecond>(
        rates, fmt::format("{} of a file of {}, {} in flight, {}", name_of(combination.pattern),
                           to_text(filled_), combination.depth, through()));
    take_latencies(rate, latencies);
    finish(std::move(rate));
    return {};
  }

  // What the page cache gives, on one thread.
  void read_cached(Seconds budget) {
    const int file = file_.open_buffered();
    if (file < 0) {
      seen_.warnings.push_back("the page cache's rate was not taken: no /proc");
      return;
    }
    const Bytes range = std::min(filled_, 256_MiB);
    std::vector<char> buffer(static_cast<std::size_t>((1_MiB).value()));
    const auto pass = [&]() -> std::optional<double> {
      const double begin = monotonic_seconds();
      for (std::int64_t at = 0; at < range.value(); at += (1_MiB).value()) {
        if (pread(file, buffer.data(), buffer.size(), at) <= 0) return std::nullopt;
      }
      return range.real() / (monotonic_seconds() - begin);
    };
    std::vector<double> rates;
    if (pass()) rates = repeat(pass, {.budget = budget});
    if (!rates.empty()) hand_on_records(file, range, options_.budget * kShareOfRecords);
    close(file);
    StorageRate rate{.pattern = StoragePattern::cached_read, .request = 1_MiB};
    rate.rate = measured<BytesPerSecond>(
        rates, fmt::format("{} that lie in the page cache, one thread", to_text(range)));
    finish(std::move(rate));
  }

  // What is read goes on into batches. `range` bytes of the file lie in the page cache.
  void hand_on_records(int file, Bytes range, Seconds budget) {
    const RecordOptions options{
        .file = file, .range = range, .threads = options_.threads, .budget = budget};
    for (RecordRate& one : measure_records(options)) {
      if (one.rate.runs == 0) continue;
      finish({.pattern = StoragePattern::cached_records,
              .request = one.record,
              .depth = one.workers,
              .rate = std::move(one.rate)});
    }
  }

  [[nodiscard]] Result<void> read_small_files(Seconds budget) {
    constexpr Bytes kSize = 100_kB;
    const std::size_t count = options_.budget >= kForFullTable ? 256 : 64;
    STEELYARD_TRY(files, SmallFiles::create(options_.folder, count, kSize));
    for (const std::size_t depth : {std::size_t{1}, std::size_t{8}}) {
      bool whole = true;
      const std::vector<double> rates = repeat(
          [&]() -> std::optional<double> {
            files.forget_pages();
            const Seconds time = read_all(files, depth, whole);
            if (!whole) return std::nullopt;
            return static_cast<double>(count) * kSize.real() / time.value();
          },
          {.budget = budget / 2});
      if (!whole)
        return fail({.code = ErrorCode::unreadable,
                     .subject = files.folder().string(),
                     .found = "a small file that came back short",
                     .accepted = "what was written"});
      StorageRate rate{.pattern = StoragePattern::small_files,
                       .request = kSize,
                       .depth = static_cast<std::int64_t>(depth)};
      rate.rate = measured<BytesPerSecond>(
          rates, fmt::format("open, read and close of {} files by {} thread{}; their pages were "
                             "dropped from the page cache, their names were not",
                             count, depth, depth == 1 ? "" : "s"));
      finish(std::move(rate));
    }
    return {};
  }

 private:
  [[nodiscard]] std::string through() const {
    return fmt::format("{}, {}", engine_->name(),
                       file_.direct() ? "O_DIRECT" : "through the page cache");
  }

  void finish(StorageRate rate) {
    rate.operations = facts::OperationsPerSecond(rate.rate.median.value() / rate.request.real());
    if (rate.rate.runs == 0) rate.rate.warning = "not measured";
    seen_.rates.push_back(std::move(rate));
  }

  static Seconds read_all(const SmallFiles& files, std::size_t threads, bool& whole) {
    std::vector<char> fine(threads, 1);
    const std::vector<int> any(threads, -1);  // no hardware thread: the kernel chooses
    const Seconds time = run_together(any, [&](std::size_t thread) {
      std::vector<char> buffer;
      for (std::size_t i = thread; i < files.count(); i += threads)
        fine[thread] = static_cast<char>(fine[thread] && files.read(i, buffer));
    });
    whole = std::all_of(fine.begin(), fine.end(), [](char one) { return one != 0; });
    return time;
  }

  const StorageOptions& options_;
  TestFile file_;
  Bytes size_;
  Bytes filled_{};
  StorageMeasurements& seen_;
  std::unique_ptr<IoEngine> engine_;
};

}  // namespace

std::vector<std::string> cache_warnings(const StorageMeasurements& seen, const FileSystemKind& kind,
                                        bool guest) {
  std::vector<std::string> warnings;
  if (kind.in_memory) {
    warnings.push_back(fmt::format("{} lies in memory: these are no rates of a disk", kind.name));
    return warnings;
  }
  if (!seen.direct) {
    warnings.push_back(fmt::format(
        "{} takes no O_DIRECT: reads went through the page cache, which was emptied of the file "
        "before each run as far as the kernel heeds that",
        kind.name));
  }
  if (guest || kind.remote) {
    warnings.push_back(fmt::format(
        "the {} may hold the test file ({}) in its memory: a data set larger than that memory "
        "reads slower",
        kind.remote ? "server" : "host of this virtual machine", to_text(seen.test_file)));
  }
  // Sources: a page of NAND flash takes 40 us and more to read; PCIe 5.0 x4 carries 15.75 GB/s.
  constexpr Seconds kFasterThanFlash{20e-6};
  constexpr BytesPerSecond kOneDrive{15.75e9};
  for (const StorageRate& rate : seen.rates) {
    const bool random = rate.pattern == StoragePattern::random_read;
    if (random && rate.depth == 1 && rate.latency_median > Seconds(0) &&
        rate.latency_median < kFasterThanFlash) {
      warnings.push_back(
          fmt::format("a random read of {} takes {}: faster than flash, so a cache answers",
                      to_text(rate.request), to_text(rate.latency_median)));
      break;
    }
  }
  const auto too_fast = [&](const StorageRate& rate) {
    return rate.pattern != StoragePattern::cached_read &&
           rate.pattern != StoragePattern::cached_records &&
           rate.pattern != StoragePattern::small_files && rate.rate.median > kOneDrive;
  };
  if (std::any_of(seen.rates.begin(), seen.rates.end(), too_fast)) {
    warnings.push_back("faster than one drive's PCIe 5.0 x4 (15.75 GB/s): an array, or a cache");
  }
  return warnings;
}

Result<StorageMeasurements> measure_storage(const StorageOptions& options) {
  const Interruption interruption;
  STEELYARD_TRY(space, options.space(options.folder));
  STEELYARD_TRY(size, permitted_test_file(options.test_file, space));
  STEELYARD_TRY(file, TestFile::create(options.folder));
  const FileSystemKind kind = kind_of(options.folder);
  StorageMeasurements seen{
      .path = options.folder.string(), .file_system = kind.name, .free_before = space.free};
  StorageMeter meter(options, std::move(file), size, seen);
  const double begin = monotonic_seconds();
  STEELYARD_CHECK(meter.write());
  STEELYARD_CHECK(meter.read_small_files(options.budget * kShareOfSmallFiles));
  const std::vector<Combination> all = combinations(options.budget);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const double spent = monotonic_seconds() - begin;
    const double left = options.budget.value() * (1 - kShareOfCachedRead - kShareOfRecords) - spent;
    const double share = std::max(0.05, left / static_cast<double>(all.size() - i));
    STEELYARD_CHECK(meter.read(all[i], Seconds(share)));
    if (interrupted()) return fail(interruption_error());
  }
  meter.read_cached(options.budget * kShareOfCachedRead);
  const std::vector<std::string> doubts = cache_warnings(seen, kind, options.guest);
  seen.warnings.insert(seen.warnings.end(), doubts.begin(), doubts.end());
  if (interrupted()) return fail(interruption_error());
  return seen;
}

}  // namespace steelyard::probe
