#include "share/memory.h"

#include <algorithm>
#include <map>
#include <string>

namespace steelyard::share {
namespace {

Bytes system_of(const facts::RamPlan& ram) {
  return ram.phases[0][facts::RamCategory::system];
}

// What a job holds while it runs and saves nothing.
Bytes steady_of(const facts::RamPlan& ram) {
  return ram.phases[static_cast<std::size_t>(facts::RamPhase::steady)].total();
}

}  // namespace

facts::SharedRam shared_ram(const std::vector<facts::PlacedJob>& jobs,
                            const facts::Known<Bytes>& capacity) {
  facts::SharedRam all{.capacity = capacity};
  std::map<std::string, Bytes> wanted;
  Bytes system, steady, most_beyond;
  for (const facts::PlacedJob& job : jobs) {
    if (!job.alone) continue;
    const facts::RamPlan& ram = job.alone->ram;
    const Bytes own = system_of(ram);
    system = std::max(system, own);
    for (std::size_t phase = 0; phase < facts::kRamPhases; ++phase) {
      all.phases[phase] += ram.phases[phase].total() - own;
    }
    all.worst += ram.peak - own;
    steady += steady_of(ram) - own;
    most_beyond = std::max(most_beyond, ram.peak - steady_of(ram));
    Bytes& cache = wanted[job.file];
    cache = std::max(cache, ram.page_cache_wanted);
  }
  for (Bytes& phase : all.phases) phase += system;
  all.worst += system;
  all.one_by_one = system + steady + most_beyond;
  for (const auto& [file, bytes] : wanted) all.page_cache_wanted += bytes;
  if (capacity) all.page_cache_left = std::max(Bytes(), *capacity - all.worst);
  return all;
}

}  // namespace steelyard::share
