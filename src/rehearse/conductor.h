// The accelerators of one process of a synchronous job: they begin each step together, and with
// those of all other processes.
#pragma once

#include <atomic>
#include <functional>
#include <span>

#include "rehearse/accelerator.h"
#include "rehearse/crew.h"
#include "rehearse/cuda_devices.h"

namespace steelyard::rehearse {

// Of this process, without its first step. Written by the conductor's thread, read after its end.
struct OwnWaits {
  Nanoseconds for_data = 0;    // until its own batches were there
  Nanoseconds for_others = 0;  // then until all had theirs
  std::int64_t last = 0;       // steps for which all waited for this process
};

struct Conducted {
  Crew& crew;
  Batches& batches;
  Nanoseconds step = 0;
  Seconds patience;
  const std::atomic<bool>& stop;
  std::span<AcceleratorTime> accelerators;
  OwnWaits& waits;
  CudaDevices* devices = nullptr;                           // none: accelerators are paced
  std::function<void()> took;                               // a batch
  std::function<std::optional<facts::RehearsalEnd>()> end;  // this process wants to end
  std::function<void(facts::RehearsalEnd)> stop_all;        // all agreed to end
  std::function<void(Error)> broken;  // a device fails: from then on `end` says so
};

// Until all agreed to end. A step that has begun counts, also where the end comes amid it: so all
// processes count the same. Errors: those of the crew.
[[nodiscard]] Result<void> conduct(const Conducted& context);

}  // namespace steelyard::rehearse
