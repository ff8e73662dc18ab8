// One figure of the probe at a time, so that a script can alternate it with another program's.
//
//   probe_rates memory KERNEL INSTRUCTIONS THREADS MEGABYTES    read | write | copy | triad
//   probe_rates storage FILE KIND REQUEST DEPTH SECONDS         read | randread | write
//
// Prints MB/s (10^6 bytes per second) and nothing else. `write` overwrites FILE.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "probe/conditions.h"
#include "probe/crew.h"
#include "probe/io_engine.h"
#include "probe/memory_kernels.h"
#include "probe/pages.h"

using namespace steelyard;

namespace {

int refuse(const std::string& why) {
  fmt::print(stderr, "probe_rates: {}\n", why);
  return 1;
}

// As likwid-bench does: all iterations of all threads under one clock, which starts when the
// memory is there. `megabytes` is what all arrays take together.
int memory(const std::vector<std::string>& words) {
  const probe::MemoryKernels kernels = probe::memory_kernels(words[3]);
  if (kernels.read == nullptr) return refuse("no such instructions");
  std::vector<int> threads = probe::schedulable_threads();
  threads.resize(std::min(threads.size(), static_cast<std::size_t>(std::stoul(words[4]))));
  const Bytes size(std::stoll(words[5]) * 1'000'000);
  const auto pages = probe::Pages::map(size, probe::PageSize::huge);
  if (!pages) return refuse(to_text(pages.error()));
  double* const begin = pages->as<double>().data();
  const std::size_t step = probe::kKernelStep;
  const std::size_t each = static_cast<std::size_t>(size.value()) / sizeof(double) /
                           threads.size() / (6 * step) * (6 * step);
  const auto part = [&](std::size_t i) { return begin + i * each; };
  (void)probe::run_together(threads, [&](std::size_t i) { kernels.write(part(i), each, 1.0); });
  constexpr int kIterations = 10;
  std::vector<double> sums(threads.size());
  const std::string& kernel = words[2];
  const Seconds time = probe::run_together(threads, [&](std::size_t i) {
    double* const a = part(i);
    for (int turn = 0; turn < kIterations; ++turn) {
      if (kernel == "read") sums[i] += kernels.read(a, each);
      if (kernel == "write") kernels.write(a, each, 2.0);
      if (kernel == "copy") kernels.copy(a + each / 2, a, each / 2);
      if (kernel == "triad") kernels.triad(a, a + each / 3, a + each / 3 * 2, 0.5, each / 3);
    }
  });
  const auto bytes = static_cast<double>(each * sizeof(double) * threads.size() * kIterations);
  fmt::print("{:.1f}\n", bytes / time.value() / 1e6);
  return 0;
}

int storage(const std::vector<std::string>& words) {
  const int file = open(words[2].c_str(), O_RDWR | O_DIRECT);
  struct stat state {};
  if (file < 0 || fstat(file, &state) != 0)
    return refuse("the file cannot be opened with O_DIRECT");
  const std::string& kind = words[3];
  const probe::IoPattern pattern{
      .file = file,
      .direction = kind == "write" ? probe::Direction::write : probe::Direction::read,
      .order = kind == "randread" ? probe::Order::random : probe::Order::sequential,
      .request = Bytes(std::stoll(words[4])),
      .depth = std::stoll(words[5]),
      .end = Bytes(state.st_size),
      .duration = Seconds(std::stod(words[6])),
      .seed = static_cast<std::uint64_t>(getpid())};
  std::string reason;
  const auto engine = probe::make_io_engine(reason);
  const auto result = engine->run(pattern);
  close(file);
  if (!reason.empty()) fmt::print(stderr, "{}\n", reason);
  if (!result) return refuse(to_text(result.error()));
  fmt::print("{:.1f}\n", result->moved.real() / result->elapsed.value() / 1e6);
  return 0;
}

}  // namespace

int main(int count, char** values) {
  const std::vector<std::string> words(values, values + count);
  if (words.size() == 6 && words[1] == "memory") return memory(words);
  if (words.size() == 7 && words[1] == "storage") return storage(words);
  return refuse(
      "memory KERNEL INSTRUCTIONS THREADS MEGABYTES, or storage FILE KIND REQUEST DEPTH SECONDS");
}
