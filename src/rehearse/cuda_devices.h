// Real accelerators: batches are copied to them over PCIe by the CUDA driver, out of pinned memory.
// The driver's library is opened while the program runs.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/quantity.h"
#include "facts/rehearsal.h"

namespace steelyard::rehearse {

struct CudaOptions {
  std::string library{};                       // empty: $STEELYARD_CUDA, else libcuda.so.1
  std::optional<std::int64_t> accelerators{};  // none: all that the driver shows
  std::int64_t first = 0;                      // of this process, where several share a host
  Seconds patience = Seconds(60);              // with a copy that does not end
};

// One accelerator is one GPU. Copies of different accelerators may be called from different
// threads.
class CudaDevices {
 public:
  // Starts the driver and takes a stream on each GPU: what the driver itself holds of the host's
  // memory is taken then. Errors: not_supported (no library, functions are missing, the driver does
  // not start), impossible_combination (fewer GPUs than accelerators), unreadable (a GPU fails).
  [[nodiscard]] static Result<std::unique_ptr<CudaDevices>> open(const CudaOptions& options);
  ~CudaDevices();
  CudaDevices(const CudaDevices&) = delete;
  CudaDevices& operator=(const CudaDevices&) = delete;

  [[nodiscard]] std::size_t count() const;
  // The NUMA nodes that the GPUs are near to; empty where that is unknown of one.
  [[nodiscard]] std::vector<int> nodes() const;

  // Pins the memory of all batches and takes two batches of each GPU's own memory. Errors:
  // too_large when either is refused.
  [[nodiscard]] Result<void> take(void* batches, std::size_t bytes, std::size_t batch_bytes);
  // Gives both back: before the memory of the batches goes.
  void give_back();

  // Asks for a copy of one batch, on the stream of that accelerator.
  [[nodiscard]] Result<void> begin_copy(std::size_t accelerator, const void* from,
                                        std::size_t bytes);
  // Waits until it is done. Errors: unreadable with the driver's word, or when it does not end
  // within the patience.
  [[nodiscard]] Result<void> end_copy(std::size_t accelerator);

  // What was copied so far; by a thread that copies nothing now.
  [[nodiscard]] std::vector<facts::RehearsalDevice> counted() const;

 private:
  struct Driver;
  struct Device;
  CudaDevices();
  [[nodiscard]] Result<void> open_device(int ordinal);
  [[nodiscard]] Result<void> check(const Device& device, const char* what, int result) const;
  [[nodiscard]] Result<void> wait_for(const Device& device) const;

  std::unique_ptr<Driver> driver_;
  std::vector<std::unique_ptr<Device>> devices_;
  Seconds patience_ = Seconds(60);
  void* pinned_ = nullptr;
  std::atomic<bool> lost_{false};  // a copy failed: the driver is asked for nothing any more
};

}  // namespace steelyard::rehearse
