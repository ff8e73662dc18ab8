#include "sense/gpu_clocks.h"

#include <utility>

namespace steelyard::sense {
namespace {

constexpr unsigned long long kPowerLimit = 0x4;    // nvmlClocksThrottleReasonSwPowerCap
constexpr unsigned long long kHardware = 0x8;      // HwSlowdown: heat or power brake
constexpr unsigned long long kHeat = 0x20 | 0x40;  // SwThermalSlowdown, HwThermalSlowdown
constexpr unsigned long long kPowerBrake = 0x80;   // HwPowerBrakeSlowdown

}  // namespace

std::optional<GpuClocks> GpuClocks::open(const std::string& name) {
  auto library = SharedLibrary::open(
      name.empty() ? library_name("STEELYARD_NVML", "libnvidia-ml.so.1") : name);
  if (!library) return std::nullopt;
  int (*init)() = nullptr;
  library->find("nvmlInit_v2", init);
  GpuClocks clocks(std::move(*library));
  const bool all = init != nullptr && clocks.shutdown_ != nullptr && clocks.handle_ != nullptr &&
                   clocks.reasons_ != nullptr;
  if (!all || init() != 0) return std::nullopt;
  clocks.started_ = true;
  return clocks;
}

GpuClocks::GpuClocks(SharedLibrary library) : library_(std::move(library)) {
  library_.find("nvmlShutdown", shutdown_);
  library_.find("nvmlDeviceGetHandleByPciBusId_v2", handle_);
  library_.find("nvmlDeviceGetCurrentClocksThrottleReasons", reasons_);
}

GpuClocks::GpuClocks(GpuClocks&& other) noexcept
    : library_(std::move(other.library_)),
      started_(std::exchange(other.started_, false)),
      shutdown_(other.shutdown_),
      handle_(other.handle_),
      reasons_(other.reasons_) {}

GpuClocks::~GpuClocks() {
  if (started_) shutdown_();
}

std::string GpuClocks::held_back_by(const std::string& pci) const {
  void* device = nullptr;
  unsigned long long reasons = 0;
  if (handle_(pci.c_str(), &device) != 0 || reasons_(device, &reasons) != 0) return {};
  if ((reasons & kHeat) != 0) return "heat";
  if ((reasons & kPowerBrake) != 0) return "the power brake";
  if ((reasons & kHardware) != 0) return "its hardware (heat or power)";
  if ((reasons & kPowerLimit) != 0) return "the power limit";
  return {};
}

}  // namespace steelyard::sense
