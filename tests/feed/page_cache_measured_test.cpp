// The page cache of this machine under a memory limit (facts, G5): a dataset that fits is read
// once, a larger one as the rule says. Skipped where no control group can be made or storage is not
// seen.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "feed/page_cache.h"

namespace steelyard::feed {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kSample = 64 << 10;
constexpr std::int64_t kSamples = 512;  // 32 MiB
constexpr std::int64_t kLimit = 16 << 20;
constexpr int kEpochs = 3;  // behind the first

bool wrote(const fs::path& file, const std::string& text) {
  std::ofstream out(file);
  out << text << std::flush;
  return static_cast<bool>(out);
}

// A control group with so much memory, page cache included; empty where that is refused.
class Limited {
 public:
  explicit Limited(std::int64_t bytes) {
    const std::string name = "steelyard_page_cache." + std::to_string(::getpid());
    for (const auto& [root, key] : {std::pair{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
                                    std::pair{"/sys/fs/cgroup", "memory.max"}}) {
      std::error_code failed;
      const fs::path folder = fs::path(root) / name;
      if (!fs::exists(root) || !fs::create_directory(folder, failed) || failed) continue;
      if (fs::exists(folder / key) && wrote(folder / key, std::to_string(bytes))) {
        folder_ = folder;
        return;
      }
      ::rmdir(folder.c_str());
    }
  }
  Limited(const Limited&) = delete;
  Limited& operator=(const Limited&) = delete;
  ~Limited() {
    if (!folder_.empty()) ::rmdir(folder_.c_str());
  }
  [[nodiscard]] bool exists() const { return !folder_.empty(); }
  [[nodiscard]] bool join() const {
    return wrote(folder_ / "cgroup.procs", std::to_string(::getpid()));
  }

 private:
  fs::path folder_;
};

// Bytes that this process made storage read.
std::optional<std::int64_t> read_from_storage() {
  std::ifstream file("/proc/self/io");
  std::string name;
  std::int64_t bytes = 0;
  while (file >> name >> bytes) {
    if (name == "read_bytes:") return bytes;
  }
  return std::nullopt;
}

struct Reads {
  bool known = false;
  std::array<double, kEpochs + 1> hits{};  // by epoch
};

// In a process of its own, which joins the group: what its epochs find in the page cache.
Reads read_epochs(const fs::path& file, const Limited& group, bool shuffled) {
  std::array<int, 2> pipe{};
  if (::pipe(pipe.data()) != 0) return {};
  const pid_t child = ::fork();
  if (child == 0) {
    Reads reads;
    const int in = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
    std::vector<char> sample(kSample);
    std::vector<std::int64_t> order(kSamples);
    std::iota(order.begin(), order.end(), std::int64_t{0});
    std::mt19937 engine(7);
    reads.known = in >= 0 && group.join() && read_from_storage().has_value() &&
                  ::posix_fadvise(in, 0, 0, POSIX_FADV_RANDOM) == 0;
    for (double& hits : reads.hits) {
      if (!reads.known) break;
      if (shuffled) std::shuffle(order.begin(), order.end(), engine);
      const std::int64_t before = *read_from_storage();
      for (const std::int64_t one : order) {
        reads.known = reads.known && ::pread(in, sample.data(), kSample, one * kSample) == kSample;
      }
      hits = 1.0 - static_cast<double>(*read_from_storage() - before) / (kSample * kSamples);
    }
    reads.known = reads.known && reads.hits[0] < 0.5;  // else storage is not seen at all (tmpfs)
    const bool told = ::write(pipe[1], &reads, sizeof reads) == sizeof reads;
    ::_exit(told ? 0 : 1);
  }
  ::close(pipe[1]);
  Reads reads;
  if (::read(pipe[0], &reads, sizeof reads) != sizeof reads) reads.known = false;
  ::close(pipe[0]);
  ::waitpid(child, nullptr, 0);
  return reads;
}

class Dataset {
 public:
  Dataset()
      : path_(fs::path(::testing::TempDir()) /
              ("steelyard_page_cache." + std::to_string(::getpid()))) {
    std::mt19937_64 engine(1);
    std::vector<std::uint64_t> sample(kSample / 8);
    std::ofstream out(path_, std::ios::binary);
    for (std::int64_t i = 0; i < kSamples; ++i) {
      std::ranges::generate(sample, engine);
      out.write(reinterpret_cast<const char*>(sample.data()), kSample);
    }
  }
  Dataset(const Dataset&) = delete;
  Dataset& operator=(const Dataset&) = delete;
  ~Dataset() { fs::remove(path_); }
  // Nothing of it is cached; what is read then is charged to who reads it.
  [[nodiscard]] const fs::path& cold() const {
    const int file = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    ::fdatasync(file);
    (void)::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    ::close(file);
    return path_;
  }

 private:
  fs::path path_;
};

// Nothing to compare with where the machine cannot show it.
void say(const char* why) {
  std::cout << why << "\n";
}

TEST(PageCacheOfThisMachine, HoldsWhatTheRuleSays) {
  const Dataset dataset;
  const Limited half(kLimit);
  if (!half.exists()) return say("no control group with a memory limit can be made here");
  const Reads shuffled = read_epochs(dataset.cold(), half, true);
  if (!shuffled.known) return say("what comes from storage is not seen here");
  const Bytes all(kSample * kSamples);
  // The kernel's two lists keep more than plain LRU does, and never more than fits. The process's
  // own memory is charged to the group too.
  constexpr double kOwn = 0.08;
  const CacheHits rule = page_cache_hits(Bytes(kLimit), all, facts::Shuffle::sample);
  for (int epoch = 1; epoch <= kEpochs; ++epoch) {
    const double hits = shuffled.hits[static_cast<std::size_t>(epoch)];
    EXPECT_GE(hits, rule.served.value() - kOwn) << epoch;
    EXPECT_LE(hits, rule.at_most.value() + kOwn) << epoch;
  }
  const Reads in_order = read_epochs(dataset.cold(), half, false);
  if (in_order.known) {
    EXPECT_LE(in_order.hits[kEpochs], kOwn);  // always just dropped
  }
}

TEST(PageCacheOfThisMachine, ReadsADatasetThatFitsOnce) {
  const Dataset dataset;
  const Limited whole(4 * kLimit);
  if (!whole.exists()) return say("no control group with a memory limit can be made here");
  const Reads reads = read_epochs(dataset.cold(), whole, true);
  if (!reads.known) return say("what comes from storage is not seen here");
  EXPECT_NEAR(reads.hits[0], 0.0, 0.02);
  EXPECT_NEAR(reads.hits[1], 1.0, 0.02);
}

}  // namespace
}  // namespace steelyard::feed
