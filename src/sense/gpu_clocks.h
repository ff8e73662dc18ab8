// Why an NVIDIA GPU runs below its clock at this moment, as NVML tells
// (nvmlDeviceGetCurrentClocksThrottleReasons; the bits are nvml.h's).
#pragma once

#include <optional>
#include <string>

#include "sense/shared_library.h"

namespace steelyard::sense {

class GpuClocks {
 public:
  // `library` empty: $STEELYARD_NVML, else libnvidia-ml.so.1. Nothing where NVML cannot be asked.
  [[nodiscard]] static std::optional<GpuClocks> open(const std::string& library = {});
  GpuClocks(GpuClocks&& other) noexcept;
  GpuClocks& operator=(GpuClocks&&) = delete;
  GpuClocks(const GpuClocks&) = delete;
  GpuClocks& operator=(const GpuClocks&) = delete;
  ~GpuClocks();

  // "the power limit"; empty: nothing holds it back, or it is not known.
  [[nodiscard]] std::string held_back_by(const std::string& pci) const;

 private:
  explicit GpuClocks(SharedLibrary library);
  SharedLibrary library_;
  bool started_ = false;
  int (*shutdown_)() = nullptr;
  int (*handle_)(const char*, void**) = nullptr;
  int (*reasons_)(void*, unsigned long long*) = nullptr;
};

}  // namespace steelyard::sense
