#include "rehearse/device_accelerator.h"

#include <algorithm>

namespace steelyard::rehearse {

Result<void> run_device(Batches& batches, CudaDevices& devices, std::size_t accelerator,
                        Nanoseconds step, const std::atomic<bool>& stop, AcceleratorTime& time,
                        const std::function<void()>& took) {
  Nanoseconds end = now();            // of the step under way, else of the last one
  std::optional<Nanoseconds> waited;  // before the step under way
  const auto finish = [&] {
    sleep_until(end, stop);
    const bool ended = now() >= end;
    if (waited && ended) time.step(*waited, step);
    if (waited && !ended) time.waited_in_vain(*waited);  // a step that did not end does not count
    waited.reset();
    return ended;
  };
  while (const auto full = batches.take()) {
    STEELYARD_CHECK(
        devices.begin_copy(accelerator, batches.memory(full->batch), batches.batch_bytes()));
    STEELYARD_CHECK(devices.end_copy(accelerator));
    const Nanoseconds there = now();
    batches.give_back(full->batch);
    took();
    if (!finish()) return {};
    const Nanoseconds late = now() - std::min(step, kCatchUp);
    const Nanoseconds begin = std::max({end, there, late});
    waited = begin - end;
    end = begin + step;
  }
  if (finish()) time.waited_in_vain(std::max<Nanoseconds>(0, now() - end));
  return {};
}

}  // namespace steelyard::rehearse
