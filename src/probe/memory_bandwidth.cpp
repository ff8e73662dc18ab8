#include "probe/memory_bandwidth.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "base/format.h"
#include "probe/crew.h"
#include "probe/interruption.h"
#include "probe/memory_kernels.h"
#include "probe/pages.h"
#include "probe/repeat.h"

namespace steelyard::probe {

namespace {

using namespace literals;
using facts::MemoryBandwidth;

// A walk of four times what all caches hold leaves little of it there when it begins anew.
constexpr std::int64_t kTimesTheCache = 4;
constexpr Bytes kSmallestBuffer = 256_MiB;

// What one thread walks: its own part of the buffer, as one array or cut into several.
struct Part {
  double* begin = nullptr;
  std::size_t count = 0;  // a multiple of 6 kernel steps, so that halves and thirds are whole

  [[nodiscard]] double* piece(std::size_t index, std::size_t of) const {
    return begin + count / of * index;
  }
};

std::vector<Part> parts_of(std::span<double> numbers, std::size_t threads) {
  const std::size_t step = 6 * kKernelStep;
  const std::size_t each = numbers.size() / threads / step * step;
  std::vector<Part> parts;
  for (std::size_t i = 0; i < threads; ++i) parts.push_back({numbers.data() + i * each, each});
  return parts;
}

class Meter {
 public:
  Meter(const MemoryKernels& kernels, std::size_t figures, Seconds budget)
      : kernels_(kernels), end_(monotonic_seconds() + budget.value()), left_(figures) {}

  // Slice by slice, so that a slow or busy host ends with a smaller buffer and not with a late
  // answer. What was touched, at least one slice.
  [[nodiscard]] std::span<double> touch(const Pages& pages, const std::vector<int>& threads,
                                        Seconds budget) const {
    const std::span<double> all = pages.as<double>();
    const std::size_t slice = static_cast<std::size_t>((128_MiB).value()) / sizeof(double);
    const double end = monotonic_seconds() + budget.value();
    std::size_t touched = 0;
    while (touched < all.size() && (touched == 0 || monotonic_seconds() < end)) {
      const std::span<double> next = all.subspan(touched, std::min(slice, all.size() - touched));
      const std::vector<Part> parts = parts_of(next, threads.size());
      (void)run_together(
          threads, [&](std::size_t i) { kernels_.write(parts[i].begin, parts[i].count, 1.0); });
      touched += next.size();
    }
    return all.first(touched);
  }

  MemoryBandwidth measure(std::span<double> numbers, const std::vector<int>& threads) {
    const std::vector<Part> parts = parts_of(numbers, threads.size());
    std::vector<double> sums(threads.size());
    const MemoryKernels& k = kernels_;
    MemoryBandwidth rates{.threads = static_cast<std::int64_t>(threads.size())};
    const auto figure = [&](const char* words, const std::function<void(std::size_t)>& work) {
      return one(parts[0].count, threads, words, work);
    };
    rates.read =
        figure("read", [&](std::size_t i) { sums[i] = k.read(parts[i].begin, parts[i].count); });
    rates.write = figure("streaming stores",
                         [&](std::size_t i) { k.write(parts[i].begin, parts[i].count, 2.0); });
    rates.copy = figure("copy of one half to the other", [&](std::size_t i) {
      k.copy(parts[i].piece(1, 2), parts[i].piece(0, 2), parts[i].count / 2);
    });
    rates.triad = figure("triad of three arrays", [&](std::size_t i) {
      k.triad(parts[i].piece(2, 3), parts[i].piece(0, 3), parts[i].piece(1, 3), 0.5,
              parts[i].count / 3);
    });
    return rates;
  }

 private:
  facts::Repeated<BytesPerSecond> one(std::size_t each, const std::vector<int>& threads,
                                      const char* words,
                                      const std::function<void(std::size_t)>& work) {
    const double left = std::max(0.0, end_ - monotonic_seconds());
    const Repetition repetition{.budget = Seconds(left / static_cast<double>(left_)),
                                .least = left > 0 ? 3 : 1};
    if (left_ > 1) --left_;
    const double bytes = static_cast<double>(each * sizeof(double) * threads.size());
    const std::vector<double> rates = repeat(
        [&]() -> std::optional<double> { return bytes / run_together(threads, work).value(); },
        repetition);
    return measured<BytesPerSecond>(
        rates, fmt::format("{} over {} with {} kernels, {} thread{}, huge pages asked for", words,
                           to_text(Bytes(static_cast<std::int64_t>(bytes))), kernels_.instructions,
                           threads.size(), threads.size() == 1 ? "" : "s"));
  }

  MemoryKernels kernels_;
  double end_;
  std::size_t left_;  // figures
};

void warn(MemoryBandwidth& rates, const std::string& warning) {
  for (auto* figure : {&rates.read, &rates.write, &rates.copy, &rates.triad}) {
    figure->warning = figure->warning ? *figure->warning + "; " + warning : warning;
  }
}

// How many figures there will be, for sharing out the time.
std::size_t figures_of(const std::vector<NodeThreads>& nodes) {
  std::size_t pairs = 0;
  std::size_t lone = 0;
  for (const NodeThreads& memory : nodes) {
    if (!memory.has_memory) continue;
    for (const NodeThreads& cores : nodes) {
      if (cores.threads.empty()) continue;
      ++pairs;
      if (cores.node == memory.node && cores.threads.size() > 1) ++lone;
    }
  }
  return 4 * (pairs + lone);
}

}  // namespace

Result<facts::MemoryMeasurements> measure_memory(const MemoryOptions& options) {
  const Interruption interruption;
  const MemoryKernels kernels = memory_kernels();
  facts::MemoryMeasurements seen{.instructions = kernels.instructions,
                                 .last_level_cache = options.last_level_cache};
  const Bytes wanted = std::max(kSmallestBuffer, options.last_level_cache * kTimesTheCache);
  seen.buffer = std::min(
      wanted, Bytes(std::max<std::int64_t>(options.available.value() / 4, (4_MiB).value())));
  Meter meter(kernels, std::max<std::size_t>(1, figures_of(options.nodes)), options.budget);
  std::vector<int> everyone;
  for (const NodeThreads& node : options.nodes)
    everyone.insert(everyone.end(), node.threads.begin(), node.threads.end());
  for (const NodeThreads& memory : options.nodes) {
    if (!memory.has_memory) continue;
    STEELYARD_TRY(pages, Pages::map(seen.buffer, PageSize::huge));
    const bool bound = pages.bind_to_node(memory.node);
    // Pages lie where the first touch comes from, whether binding is allowed or not.
    const std::span<double> numbers =
        meter.touch(pages, memory.threads.empty() ? everyone : memory.threads,
                    options.budget / static_cast<double>(3 * options.nodes.size()));
    const Bytes walked(static_cast<std::int64_t>(numbers.size_bytes()));
    seen.buffer = std::min(seen.buffer, walked);
    for (const NodeThreads& cores : options.nodes) {
      if (cores.threads.empty()) continue;
      std::vector<std::vector<int>> crews = {cores.threads};
      if (cores.node == memory.node && cores.threads.size() > 1)
        crews.push_back({cores.threads.front()});
      for (const std::vector<int>& crew : crews) {
        MemoryBandwidth rates = meter.measure(numbers, crew);
        rates.core_node = cores.node;
        rates.memory_node = memory.node;
        if (!bound && memory.threads.empty())
          warn(rates, "the memory could not be bound to its node, it may lie on another");
        if (walked < 2 * options.last_level_cache)
          warn(rates, fmt::format("the buffer ({}) is not far above the caches ({})",
                                  to_text(walked), to_text(options.last_level_cache)));
        seen.rates.push_back(std::move(rates));
        if (interrupted()) return fail(interruption_error());
      }
    }
  }
  return seen;
}

}  // namespace steelyard::probe
