#include "probe/host_rates.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/format.h"
#include "probe/byte_scan.h"
#include "probe/crew.h"
#include "probe/interruption.h"
#include "probe/pages.h"
#include "probe/repeat.h"

namespace steelyard::probe {

namespace {

using namespace literals;

constexpr std::size_t kFigures = 5;
constexpr Bytes kPageFaultPiece = 64_MiB;  // per thread
constexpr Bytes kLockedPiece = 32_MiB;     // per thread
constexpr std::size_t kSmallPage = 4096;

std::string on(const std::vector<int>& threads) {
  return threads.size() == 1 ? "on one core" : fmt::format("on {} threads", threads.size());
}

facts::Repeated<BytesPerSecond> unmeasured(const std::string& how, const Error& error) {
  return {.how = how, .warning = to_text(error)};
}

class HostMeter {
 public:
  HostMeter(const HostOptions& options, std::vector<int> threads, Seconds per_figure)
      : options_(options), threads_(std::move(threads)), repetition_{.budget = per_figure} {}

  // Walks half of a buffer far above the caches, or copies it to the other half.
  void walks(facts::HostRate& rate) const {
    const Bytes wanted = std::max(256_MiB, options_.last_level_cache * 2);
    const Bytes size = std::min(wanted, Bytes(options_.available.value() / 4));
    Result<Pages> pages = Pages::map(size, PageSize::huge);
    if (!pages) {
      rate.byte_scan = unmeasured("byte scan", pages.error());
      rate.memory_copy = unmeasured("memcpy", pages.error());
      return;
    }
    const std::size_t each = pages->size() / threads_.size() / 2 / kSmallPage * kSmallPage;
    const auto part = [&](std::size_t i) { return pages->data() + 2 * i * each; };
    (void)run_together(threads_, [&](std::size_t i) { std::memset(part(i), 'a', 2 * each); });
    std::vector<std::size_t> found(threads_.size());
    rate.byte_scan = figure(
        2 * each,
        [&](std::size_t i) {
          found[i] = count_byte({part(i), 2 * each}, std::byte{'\n'});
        },
        fmt::format("counting line ends in {} {}", to_text(whole(2 * each)), on(threads_)));
    rate.memory_copy = figure(
        each, [&](std::size_t i) { std::memcpy(part(i) + each, part(i), each); },
        fmt::format("memcpy of {} {}", to_text(whole(each)), on(threads_)));
  }

  // One store into each page of a new mapping.
  [[nodiscard]] facts::Repeated<BytesPerSecond> touch(PageSize size) const {
    const std::string how = fmt::format(
        "one store into each 4 KiB of a new mapping of {} per thread, {} pages, {}",
        to_text(kPageFaultPiece), size == PageSize::huge ? "huge" : "small", on(threads_));
    return mapped(kPageFaultPiece, size, how, [](std::byte* data, std::size_t bytes) {
      volatile std::byte* at = data;
      for (std::size_t i = 0; i < bytes; i += kSmallPage) at[i] = std::byte{1};
      return 0;
    });
  }

  [[nodiscard]] facts::Repeated<BytesPerSecond> lock() const {
    const std::string how = fmt::format("mmap and mlock of {} per thread, small pages, {}",
                                        to_text(kLockedPiece), on(threads_));
    return mapped(kLockedPiece, PageSize::small, how, [](std::byte* data, std::size_t bytes) {
      if (mlock(data, bytes) != 0) return errno;
      munlock(data, bytes);
      return 0;
    });
  }

 private:
  [[nodiscard]] Bytes whole(std::size_t each) const {
    return Bytes(static_cast<std::int64_t>(each * threads_.size()));
  }

  [[nodiscard]] facts::Repeated<BytesPerSecond> figure(std::size_t each,
                                                       const std::function<void(std::size_t)>& work,
                                                       std::string how) const {
    const double bytes = whole(each).real();
    return measured<BytesPerSecond>(
        repeat(
            [&]() -> std::optional<double> { return bytes / run_together(threads_, work).value(); },
            repetition_),
        std::move(how));
  }

  // A new mapping for each thread and run: what `use` does with it is timed, mmap and munmap of
  // the mapping are not.
  [[nodiscard]] facts::Repeated<BytesPerSecond> mapped(
      Bytes piece, PageSize size, const std::string& how,
      const std::function<int(std::byte*, std::size_t)>& use) const {
    std::optional<Error> refused;
    std::vector<int> failures(threads_.size());
    const auto rates = repeat(
        [&]() -> std::optional<double> {
          std::vector<Pages> pages;
          for (std::size_t i = 0; i < threads_.size(); ++i) {
            Result<Pages> one = Pages::map(piece, size);
            if (!one) {
              refused = one.error();
              return std::nullopt;
            }
            pages.push_back(std::move(*one));
          }
          const Seconds time = run_together(threads_, [&](std::size_t i) {
            failures[i] = use(pages[i].data(), pages[i].size());
          });
          const auto failure =
              std::find_if(failures.begin(), failures.end(), [](int e) { return e; });
          if (failure != failures.end()) {
            refused =
                Error{.code = ErrorCode::unreadable,
                      .subject = "locking pages",
                      .found = std::strerror(*failure),
                      .accepted = "a limit of locked memory (ulimit -l) of at least " +
                                  to_text(piece * static_cast<std::int64_t>(threads_.size()))};
            return std::nullopt;
          }
          return whole(static_cast<std::size_t>(piece.value())).real() / time.value();
        },
        repetition_);
    if (rates.empty() && refused) return unmeasured(how, *refused);
    return measured<BytesPerSecond>(rates, how);
  }

  const HostOptions& options_;
  std::vector<int> threads_;
  Repetition repetition_;
};

}  // namespace

Result<std::vector<facts::HostRate>> measure_host(const HostOptions& options) {
  const Interruption interruption;
  std::vector<std::vector<int>> crews = {{options.threads.front()}};
  if (options.threads.size() > 1) crews.push_back(options.threads);
  std::vector<facts::HostRate> seen;
  for (const std::vector<int>& crew : crews) {
    const HostMeter meter(options, crew,
                          options.budget / static_cast<double>(kFigures * crews.size()));
    facts::HostRate rate{.threads = static_cast<std::int64_t>(crew.size())};
    meter.walks(rate);
    rate.first_touch = meter.touch(PageSize::small);
    rate.first_touch_huge = meter.touch(PageSize::huge);
    rate.lock_pages = meter.lock();
    seen.push_back(std::move(rate));
    if (interrupted()) return fail(interruption_error());
  }
  return seen;
}

}  // namespace steelyard::probe
