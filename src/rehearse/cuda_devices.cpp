#include "rehearse/cuda_devices.h"

#include <algorithm>
#include <array>

#include "base/format.h"
#include "rehearse/clock.h"
#include "sense/cuda_api.h"
#include "sense/tree.h"

namespace steelyard::rehearse {
namespace {

using sense::CudaApi;
using sense::CudaDevice;
using sense::CudaHandle;
using sense::CudaPointer;
using sense::kCudaNonBlocking;
using sense::kCudaNotReady;
using sense::kCudaPortable;
using sense::kCudaSuccess;

std::string lower(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return text;
}

Error no_driver(const std::string& what, const std::string& found) {
  return {.code = ErrorCode::not_supported,
          .subject = "--device cuda: " + what,
          .found = found,
          .accepted = "a machine with NVIDIA's driver",
          .hint = "--device paced needs no GPU"};
}

}  // namespace

struct CudaDevices::Driver {
  explicit Driver(sense::SharedLibrary opened) : library(std::move(opened)), api(library) {}
  sense::SharedLibrary library;
  CudaApi api;
};

struct CudaDevices::Device {
  CudaDevice id = 0;
  int ordinal = 0;
  std::string name, pci;
  std::optional<std::int64_t> node;
  CudaHandle context = nullptr, stream = nullptr;
  std::array<CudaHandle, 2> events{};    // around a copy
  std::array<CudaPointer, 2> buffers{};  // one is computed on while the other is filled
  std::size_t next = 0;                  // buffer
  std::int64_t copies = 0;
  std::size_t copied = 0, under_way = 0;
  double seconds = 0;

  [[nodiscard]] std::string called() const {
    return "GPU " + std::to_string(ordinal) + " (" + name + ")";
  }
};

CudaDevices::CudaDevices() = default;

CudaDevices::~CudaDevices() {
  give_back();
  if (lost_)
    return;  // what frees memory waits for copies that do not end; all goes with the process
  for (const auto& device : devices_) {
    if (device->context == nullptr) continue;
    driver_->api.set_current(device->context);
    for (const CudaHandle event : device->events) {
      if (event != nullptr) driver_->api.end_event(event);
    }
    if (device->stream != nullptr) driver_->api.end_stream(device->stream);
    driver_->api.release(device->id);
  }
}

Result<void> CudaDevices::check(const Device& device, const char* what, int result) const {
  if (result == kCudaSuccess) return {};
  return fail({.code = ErrorCode::unreadable,
               .subject = device.called() + ": " + what,
               .found = driver_->api.name_of(result)});
}

Result<void> CudaDevices::open_device(int ordinal) {
  const CudaApi& api = driver_->api;
  Device& device = *devices_.emplace_back(std::make_unique<Device>());
  device.ordinal = ordinal;
  std::array<char, 256> text{};
  STEELYARD_CHECK(check(device, "the device", api.device(&device.id, ordinal)));
  if (api.name(text.data(), static_cast<int>(text.size()) - 1, device.id) == kCudaSuccess) {
    device.name = text.data();
  }
  text.fill('\0');
  if (api.pci(text.data(), static_cast<int>(text.size()) - 1, device.id) == kCudaSuccess) {
    device.pci = lower(text.data());
    const auto node = sense::Tree().number("/sys/bus/pci/devices/" + device.pci + "/numa_node");
    if (node && *node >= 0) device.node = *node;  // -1: the firmware does not tell
  }
  STEELYARD_CHECK(check(device, "its context", api.retain(&device.context, device.id)));
  STEELYARD_CHECK(check(device, "its context", api.set_current(device.context)));
  STEELYARD_CHECK(check(device, "a stream", api.make_stream(&device.stream, kCudaNonBlocking)));
  for (CudaHandle& event : device.events) {
    STEELYARD_CHECK(check(device, "an event", api.make_event(&event, 0)));
  }
  return {};
}

Result<std::unique_ptr<CudaDevices>> CudaDevices::open(const CudaOptions& options) {
  const std::string name = options.library.empty()
                               ? sense::library_name("STEELYARD_CUDA", "libcuda.so.1")
                               : options.library;
  auto library = sense::SharedLibrary::open(name);
  if (!library) return fail(no_driver(name, "it cannot be loaded"));
  std::unique_ptr<CudaDevices> devices(new CudaDevices());
  devices->patience_ = options.patience;
  devices->driver_ = std::make_unique<Driver>(std::move(*library));
  const CudaApi& api = devices->driver_->api;
  if (!api.can_pin()) return fail(no_driver(name, "it lacks functions of the CUDA driver"));
  if (const int result = api.init(0); result != kCudaSuccess) {
    return fail(no_driver("the CUDA driver does not start", api.name_of(result)));
  }
  int count = 0;
  if (const int result = api.count(&count); result != kCudaSuccess) {
    return fail(no_driver("the CUDA driver does not count the GPUs", api.name_of(result)));
  }
  const std::int64_t wanted =
      options.accelerators.value_or(std::max<std::int64_t>(1, count - options.first));
  if (wanted < 1 || options.first + wanted > count) {
    return fail({.code = ErrorCode::impossible_combination,
                 .subject = "--device cuda",
                 .found = std::to_string(options.first + wanted) + " accelerators of this host",
                 .accepted = std::to_string(count) + ", the GPUs that the driver shows",
                 .hint = "fewer --accelerators, or --device paced"});
  }
  for (std::int64_t i = 0; i < wanted; ++i) {
    STEELYARD_CHECK(devices->open_device(static_cast<int>(options.first + i)));
  }
  return devices;
}

std::size_t CudaDevices::count() const {
  return devices_.size();
}

std::vector<int> CudaDevices::nodes() const {
  std::vector<int> nodes;
  for (const auto& device : devices_) {
    if (!device->node) return {};
    nodes.push_back(static_cast<int>(*device->node));
  }
  return nodes;
}

Result<void> CudaDevices::take(void* batches, std::size_t bytes, std::size_t batch_bytes) {
  const CudaApi& api = driver_->api;
  for (const auto& device : devices_) device->copies = 0, device->copied = 0, device->seconds = 0;
  const auto refused = [&](const std::string& what, std::size_t size, int result) {
    return fail(
        {.code = ErrorCode::too_large,
         .subject = what,
         .found = to_text(Bytes(static_cast<std::int64_t>(size))) + ": " + api.name_of(result),
         .hint = "a smaller --batch or --prefetch, or --device paced"});
  };
  // Portable: pinned for the contexts of all GPUs.
  api.set_current(devices_.front()->context);
  if (const int result = api.pin(batches, bytes, kCudaPortable); result != kCudaSuccess) {
    return refused("pinned memory for the batches", bytes, result);
  }
  pinned_ = batches;
  for (const auto& device : devices_) {
    api.set_current(device->context);
    for (CudaPointer& buffer : device->buffers) {
      const int result = api.allocate(&buffer, batch_bytes);
      if (result == kCudaSuccess) continue;
      buffer = 0;
      return refused("memory of " + device->called() + " for a batch", batch_bytes, result);
    }
  }
  return {};
}

void CudaDevices::give_back() {
  if (lost_) return;
  for (const auto& device : devices_) {
    if (device->context == nullptr) continue;
    driver_->api.set_current(device->context);
    for (CudaPointer& buffer : device->buffers) {
      if (buffer != 0) driver_->api.free(buffer);  // waits for copies into it
      buffer = 0;
    }
  }
  if (pinned_ == nullptr) return;
  driver_->api.set_current(devices_.front()->context);
  driver_->api.unpin(pinned_);
  pinned_ = nullptr;
}

Result<void> CudaDevices::begin_copy(std::size_t accelerator, const void* from, std::size_t bytes) {
  const CudaApi& api = driver_->api;
  Device& device = *devices_[accelerator];
  constexpr const char* kWhat = "copying a batch";
  STEELYARD_CHECK(check(device, kWhat, api.set_current(device.context)));
  STEELYARD_CHECK(check(device, kWhat, api.record(device.events[0], device.stream)));
  STEELYARD_CHECK(
      check(device, kWhat, api.to_device(device.buffers[device.next], from, bytes, device.stream)));
  STEELYARD_CHECK(check(device, kWhat, api.record(device.events[1], device.stream)));
  device.next = 1 - device.next;
  device.under_way = bytes;
  return {};
}

Result<void> CudaDevices::wait_for(const Device& device) const {
  // Asked, not waited for: the driver's own wait has no end when a GPU is lost.
  constexpr std::int64_t kLeast = 5'000, kMost = 100'000;  // nanoseconds
  const CudaApi& api = driver_->api;
  const Nanoseconds until = now() + nanoseconds(patience_);
  int result = api.query(device.events[1]);
  for (std::int64_t nap = kLeast; result == kCudaNotReady; nap = std::min(2 * nap, kMost)) {
    if (now() > until) {
      return fail({.code = ErrorCode::unreadable,
                   .subject = device.called() + ": copying a batch",
                   .found = "no end within " + to_text(patience_)});
    }
    const timespec time{.tv_sec = 0, .tv_nsec = nap};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &time, nullptr);
    result = api.query(device.events[1]);
  }
  return check(device, "copying a batch", result);
}

Result<void> CudaDevices::end_copy(std::size_t accelerator) {
  const CudaApi& api = driver_->api;
  Device& device = *devices_[accelerator];
  api.set_current(device.context);
  if (auto done = wait_for(device); !done) {
    lost_ = true;
    return done;
  }
  float milliseconds = 0;
  STEELYARD_CHECK(check(device, "the time of a copy",
                        api.elapsed(&milliseconds, device.events[0], device.events[1])));
  ++device.copies;
  device.copied += device.under_way;
  device.seconds += static_cast<double>(milliseconds) / 1e3;
  return {};
}

std::vector<facts::RehearsalDevice> CudaDevices::counted() const {
  std::vector<facts::RehearsalDevice> all;
  for (const auto& device : devices_) {
    facts::RehearsalDevice one{.accelerator = static_cast<std::int64_t>(all.size()),
                               .name = device->name,
                               .pci = device->pci,
                               .numa_node = device->node,
                               .copies = device->copies,
                               .bytes = Bytes(static_cast<std::int64_t>(device->copied)),
                               .copying = Seconds(device->seconds)};
    if (device->seconds > 0) one.rate = one.bytes / one.copying;
    all.push_back(std::move(one));
  }
  return all;
}

}  // namespace steelyard::rehearse
