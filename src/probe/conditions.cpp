#include "probe/conditions.h"

#include <fmt/format.h>
#include <sched.h>

#include <cstdlib>

namespace steelyard::probe {

namespace {

// Of a line like "always [madvise] never" the word in brackets.
std::string chosen(const std::string& line) {
  const std::size_t open = line.find('[');
  const std::size_t close = line.find(']');
  if (open == std::string::npos || close == std::string::npos || close < open) return {};
  return line.substr(open + 1, close - open - 1);
}

}  // namespace

facts::MeasuringConditions conditions_of(const sense::Tree& tree, std::int64_t threads) {
  facts::MeasuringConditions seen{.threads = threads};
  seen.load_average = std::strtod(tree.text("/proc/loadavg").value_or("0").c_str(), nullptr);
  seen.governor = tree.text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").value_or("");
  seen.transparent_huge_pages =
      chosen(tree.text("/sys/kernel/mm/transparent_hugepage/enabled").value_or(""));
  // A quarter of the threads busy takes more from a rate than the spread that counts as noise.
  if (seen.load_average > 0.25 * static_cast<double>(threads)) {
    seen.warnings.push_back(fmt::format(
        "others use the machine (load average {:.1f} on {} threads): rates of all cores come out "
        "too low",
        seen.load_average, threads));
  }
  if (!seen.governor.empty() && seen.governor != "performance") {
    seen.warnings.push_back(fmt::format(
        "the processor's governor is {}, not performance: short runs may see a lower clock",
        seen.governor));
  }
  if (seen.transparent_huge_pages == "never") {
    seen.warnings.push_back(
        "huge pages are switched off: memory rates include the cost of small pages");
  }
  return seen;
}

std::vector<int> schedulable_threads() {
  // Larger than any kernel's mask today (NR_CPUS is at most 8192).
  constexpr int kMost = 16384;
  cpu_set_t* mask = CPU_ALLOC(kMost);
  const std::size_t size = CPU_ALLOC_SIZE(kMost);
  std::vector<int> threads;
  if (mask != nullptr && sched_getaffinity(0, size, mask) == 0) {
    for (int thread = 0; thread < kMost; ++thread) {
      if (CPU_ISSET_S(static_cast<std::size_t>(thread), size, mask)) threads.push_back(thread);
    }
  }
  CPU_FREE(mask);
  if (threads.empty()) threads.push_back(0);
  return threads;
}

}  // namespace steelyard::probe
