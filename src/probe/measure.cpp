#include "probe/measure.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "probe/conditions.h"
#include "probe/host_rates.h"
#include "probe/image_rates.h"
#include "probe/interruption.h"
#include "probe/memory_bandwidth.h"
#include "probe/repeat.h"
#include "probe/storage_rates.h"

namespace steelyard::probe {

namespace {

// Shares of the time by what a figure needs: storage has the most of them and the slowest.
constexpr double kMemory = 3;
constexpr double kHost = 2;
constexpr double kImages = 5;
constexpr double kStorage = 5;  // for each folder

// Below this there is no time for large images and the largest file.
constexpr Seconds kHurry{15};
constexpr Bytes kHurriedFile{std::int64_t{256} << 20};

Bytes available_memory(const sense::Tree& tree) {
  // What a test may count on where the kernel does not say.
  constexpr Bytes kUnknown{std::int64_t{1} << 30};
  const std::string text = tree.text("/proc/meminfo").value_or("");
  const std::size_t at = text.find("MemAvailable:");
  if (at == std::string::npos) return kUnknown;
  return Bytes(std::int64_t{1024} * std::strtoll(text.c_str() + at + 13, nullptr, 10));
}

// A cgroup's limit holds beside what the host has free (version 2; version 1's file).
Bytes within_cgroup(const sense::Tree& tree, Bytes available) {
  for (const auto& [limit, used] :
       {std::pair{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
        std::pair{"/sys/fs/cgroup/memory/memory.limit_in_bytes",
                  "/sys/fs/cgroup/memory/memory.usage_in_bytes"}}) {
    const auto most = tree.number(limit);
    const auto now = tree.number(used);
    if (most && now)
      available = std::min(available, Bytes(std::max<std::int64_t>(0, *most - *now)));
  }
  return available;
}

bool is_guest(const sense::Tree& tree) {
  const std::string processor = tree.text("/proc/cpuinfo").value_or("");
  return processor.find(" hypervisor") != std::string::npos ||
         tree.text("/sys/hypervisor/type").has_value();
}

class Measurer {
 public:
  explicit Measurer(const MeasureOptions& options)
      : options_(options),
        threads_(schedulable_threads()),
        cache_(last_level_cache(tree_, threads_)),
        available_(within_cgroup(tree_, available_memory(tree_))) {
    paths_ = options.storage_paths;
    if (options.storage && paths_.empty()) paths_.push_back(".");
    if (!options.storage) paths_.clear();
    total_ = (options.memory ? kMemory : 0) + (options.host ? kHost : 0) +
             (options.images ? kImages : 0) + kStorage * static_cast<double>(paths_.size());
  }

  [[nodiscard]] Result<facts::Measurements> measure() const {
    const double begin = monotonic_seconds();
    facts::Measurements seen{.conditions =
                                 conditions_of(tree_, static_cast<std::int64_t>(threads_.size()))};
    if (options_.memory) {
      tell("memory bandwidth");
      STEELYARD_TRY(memory, measure_memory({.nodes = node_threads(tree_, threads_),
                                            .last_level_cache = cache_,
                                            .available = available_,
                                            .budget = budget(kMemory)}));
      seen.memory = std::move(memory);
    }
    if (options_.host) {
      tell("copies, scans and page faults");
      STEELYARD_TRY(host, measure_host({.threads = threads_,
                                        .available = available_,
                                        .last_level_cache = cache_,
                                        .budget = budget(kHost)}));
      seen.host = std::move(host);
    }
    if (options_.images) {
      tell("image decoding");
      ImageOptions images{
          .threads = threads_, .path = options_.images_path, .budget = budget(kImages)};
      if (options_.budget < kHurry) images.sizes = {{256, 256}, {500, 375}};
      STEELYARD_TRY(rates, measure_images(images));
      seen.images = std::move(rates);
    }
    for (const std::filesystem::path& path : paths_) {
      tell("storage in " + path.string());
      StorageOptions storage{.folder = path,
                             .guest = is_guest(tree_),
                             .budget = budget(kStorage),
                             .threads = static_cast<std::int64_t>(threads_.size())};
      if (options_.budget < kHurry) storage.test_file = kHurriedFile;
      STEELYARD_TRY(rates, measure_storage(storage));
      seen.storage.push_back(std::move(rates));
    }
    seen.took = Seconds(monotonic_seconds() - begin);
    return seen;
  }

 private:
  void tell(const std::string& part) const {
    if (options_.progress) options_.progress(part);
  }
  [[nodiscard]] Seconds budget(double share) const { return options_.budget * (share / total_); }

  const MeasureOptions& options_;
  sense::Tree tree_;
  std::vector<int> threads_;
  Bytes cache_;
  Bytes available_;
  std::vector<std::filesystem::path> paths_;
  double total_ = 0;
};

}  // namespace

Result<facts::Measurements> measure(const MeasureOptions& options) {
  const Interruption interruption;
  return Measurer(options).measure();
}

}  // namespace steelyard::probe
