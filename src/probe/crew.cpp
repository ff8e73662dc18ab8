#include "probe/crew.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <barrier>
#include <thread>

#include "probe/repeat.h"

namespace steelyard::probe {

namespace {

void bind_to(int hardware_thread) {
  constexpr int kMost = 16384;
  cpu_set_t* mask = CPU_ALLOC(kMost);
  if (mask == nullptr) return;
  const std::size_t size = CPU_ALLOC_SIZE(kMost);
  CPU_ZERO_S(size, mask);
  CPU_SET_S(static_cast<std::size_t>(hardware_thread), size, mask);
  // Refused where the cgroup changed meanwhile: then the kernel chooses, and the rate still holds.
  (void)pthread_setaffinity_np(pthread_self(), size, mask);
  CPU_FREE(mask);
}

}  // namespace

Seconds run_together(const std::vector<int>& threads,
                     const std::function<void(std::size_t)>& work) {
  const std::size_t count = threads.size();
  std::barrier<> gate(static_cast<std::ptrdiff_t>(count));
  std::vector<double> begins(count);
  std::vector<double> ends(count);
  {
    std::vector<std::jthread> crew;
    crew.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      crew.emplace_back([&, i] {
        if (threads[i] >= 0) bind_to(threads[i]);
        gate.arrive_and_wait();
        begins[i] = monotonic_seconds();
        work(i);
        ends[i] = monotonic_seconds();
      });
    }
  }
  if (count == 0) return Seconds(0);
  return Seconds(*std::max_element(ends.begin(), ends.end()) -
                 *std::min_element(begins.begin(), begins.end()));
}

}  // namespace steelyard::probe
