#include "share/contention.h"

#include <algorithm>
#include <functional>

namespace steelyard::share {
namespace {

constexpr int kHalvings = 10;  // a share is found to a thousandth

template <class Rate>
void scale(facts::Known<Rate>& rate, double share) {
  if (rate) *rate.value = *rate.value * share;
}

std::optional<Seconds> step_with(const Guest& guest, const facts::Machine& machine,
                                 const Part& part) {
  const Result<facts::Plan> plan =
      guest.planner(guest.job, with_part(machine, guest.job, part), Depth::without_vram);
  return plan ? plan->pace.step : std::nullopt;
}

bool as_fast(const std::optional<Seconds>& step, const Guest& guest) {
  return step && step->value() <= guest.alone.pace.step->value() * (1.0 + kSame);
}

// The least share in thousandths; 0: the job does without; 1: it wants all there is.
double least_share(const std::function<bool(double)>& enough) {
  constexpr double kLittle = 1.0 / (1 << kHalvings);
  if (enough(kLittle)) return 0.0;
  double low = kLittle, high = 1.0;
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = (low + high) / 2.0;
    (enough(middle) ? high : low) = middle;
  }
  return high;
}

// The fewest cores; more of them never slow a job.
std::int64_t least_cores(std::int64_t all, const std::function<bool(std::int64_t)>& enough) {
  std::int64_t low = 0, high = all;
  while (high - low > 1) {
    const std::int64_t middle = (low + high) / 2;
    (enough(middle) ? high : low) = middle;
  }
  return high;
}

}  // namespace

std::string storage_of(const facts::Job& job) {
  return job.data.location.value_or("nvme");
}

std::optional<std::int64_t> cores_of(const facts::Machine& machine) {
  if (machine.host.cores) return *machine.host.cores;
  if (machine.host.threads) return std::max<std::int64_t>(1, *machine.host.threads / 2);
  return std::nullopt;
}

facts::Machine with_part(const facts::Machine& machine, const facts::Job& job, const Part& part) {
  facts::Machine less = machine;
  if (part.memory) less.host.memory.value = *part.memory;
  if (part.cores) {
    less.host.cores.value = *part.cores;
    less.host.threads.value.reset();
  }
  for (facts::Storage& storage : less.storage) {
    if (storage.name != storage_of(job)) continue;
    scale(storage.read, part.storage);
    scale(storage.write, part.storage);
    scale(storage.read_operations_per_second, part.storage);
  }
  scale(less.gpu.host_link, part.uplink);
  scale(less.gpu.memory_bandwidth, part.bandwidth);
  facts::PeakRates& peak = less.gpu.peak;
  for (auto* rate : {&peak.fp32, &peak.tf32, &peak.fp16, &peak.bf16, &peak.fp8, &peak.fp4}) {
    scale(*rate, part.arithmetic);
  }
  scale(less.gpu.measured_bf16, part.arithmetic);
  return less;
}

Wants wants_of(const Guest& guest, const facts::Machine& machine,
               const std::optional<Bytes>& cache) {
  Wants wants;
  if (!guest.alone.pace.step) return wants;
  const auto enough = [&](const Part& part) {
    return as_fast(step_with(guest, machine, part), guest);
  };
  wants.storage =
      least_share([&](double share) { return enough({.memory = cache, .storage = share}); });
  if (machine.gpu.host_link) {
    wants.uplink = least_share([&](double share) { return enough({.uplink = share}); });
  }
  if (const auto cores = cores_of(machine)) {
    wants.cores = least_cores(*cores, [&](std::int64_t some) { return enough({.cores = some}); });
  }
  return wants;
}

}  // namespace steelyard::share
