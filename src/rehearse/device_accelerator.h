// An accelerator whose batches are really copied to it; it computes for the step time, by the
// clock.
#pragma once

#include "rehearse/accelerator.h"
#include "rehearse/cuda_devices.h"

namespace steelyard::rehearse {

// As run_accelerator, but the next batch is taken and copied while the one before is computed on;
// a step begins when its batch is on the device. Errors: those of the copy.
[[nodiscard]] Result<void> run_device(Batches& batches, CudaDevices& devices,
                                      std::size_t accelerator, Nanoseconds step,
                                      const std::atomic<bool>& stop, AcceleratorTime& time,
                                      const std::function<void()>& took);

}  // namespace steelyard::rehearse
