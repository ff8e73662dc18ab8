#include "probe/gpu_copies.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "base/format.h"
#include "probe/spread.h"
#include "sense/cuda_api.h"

namespace steelyard::probe {
namespace {

using facts::GpuDevice;
using facts::Known;
using facts::NumaNode;
using facts::Provenance;
using sense::CudaApi;
using sense::CudaDevice;
using sense::CudaHandle;
using sense::CudaPointer;
using sense::kCudaNonBlocking;
using sense::kCudaPortable;
using sense::kCudaSuccess;

// What a failed call said; the first one ends the measurement of its GPU.
struct Failure {
  std::string what;
};

// Everything that one measurement takes, given back in the opposite order.
class Bench {
 public:
  Bench(const CudaApi& api, CudaDevice device, std::size_t bytes)
      : api_(api), device_(device), bytes_(bytes) {
    try {
      check("context", api_.retain(&context_, device_));
      check("context", api_.set_current(context_));
      check("stream", api_.make_stream(&stream_, kCudaNonBlocking));
      for (CudaHandle& event : events_) check("event", api_.make_event(&event, 0));
      for (CudaPointer& block : blocks_) check("memory of the GPU", api_.allocate(&block, bytes_));
    } catch (...) {
      give_back();
      throw;
    }
  }
  ~Bench() { give_back(); }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  // Pinned memory of this thread's NUMA node: the driver touches it here.
  std::unique_ptr<void, std::function<void(void*)>> pinned() {
    void* block = nullptr;
    check("pinned host memory", api_.allocate_host(&block, bytes_, kCudaPortable));
    std::memset(block, 1, bytes_);
    return {block, [this](void* old) { api_.free_host(old); }};
  }

  // The rate of `copy`, which moves `moved` bytes: the median of `runs` after one that warms up.
  template <class Copy>
  Known<BytesPerSecond> rate(const char* what, int runs, double moved, Copy copy) {
    std::vector<double> seconds;
    for (int run = 0; run <= runs; ++run) {
      check(what, api_.record(events_[0], stream_));
      check(what, copy());
      check(what, api_.record(events_[1], stream_));
      check(what, api_.wait(events_[1]));
      float milliseconds = 0;
      check(what, api_.elapsed(&milliseconds, events_[0], events_[1]));
      if (run > 0) seconds.push_back(static_cast<double>(milliseconds) / 1e3);
    }
    const Spread spread = spread_of(seconds);
    if (!(spread.median > 0)) return {};
    return {
        BytesPerSecond(moved / spread.median), Provenance::measured,
        fmt::format("{} copies of {}, within {}", spread.runs,
                    to_text(Bytes(static_cast<std::int64_t>(bytes_))), percent(spread.relative()))};
  }

  Known<BytesPerSecond> to_device(const char* what, int runs, const void* from) {
    return rate(what, runs, static_cast<double>(bytes_),
                [&] { return api_.to_device(blocks_[0], from, bytes_, stream_); });
  }
  Known<BytesPerSecond> from_device(const char* what, int runs, void* to) {
    return rate(what, runs, static_cast<double>(bytes_),
                [&] { return api_.from_device(to, blocks_[0], bytes_, stream_); });
  }
  Known<BytesPerSecond> inside(int runs) {
    return rate("copy inside the GPU", runs, 2 * static_cast<double>(bytes_),
                [&] { return api_.inside(blocks_[1], blocks_[0], bytes_, stream_); });
  }

 private:
  void check(const char* what, int result) const {
    if (result != kCudaSuccess) throw Failure{fmt::format("{}: {}", what, api_.name_of(result))};
  }

  void give_back() {
    for (CudaPointer block : blocks_) {
      if (block != 0) api_.free(block);
    }
    for (CudaHandle event : events_) {
      if (event != nullptr) api_.end_event(event);
    }
    if (stream_ != nullptr) api_.end_stream(stream_);
    if (context_ != nullptr) api_.release(device_);
  }

  const CudaApi& api_;
  CudaDevice device_;
  std::size_t bytes_;
  CudaHandle context_ = nullptr;
  CudaHandle stream_ = nullptr;
  std::array<CudaHandle, 2> events_{};
  std::array<CudaPointer, 2> blocks_{};
};

// Runs `work` on the processors of a node, if this process may: the rest of the program stays where
// it is.
void on_node(const NumaNode* node, const std::function<void()>& work) {
  std::thread([&] {
    if (node != nullptr) {
      cpu_set_t set;
      CPU_ZERO(&set);
      for (const std::int64_t cpu : node->cpus) {
        if (cpu < CPU_SETSIZE) CPU_SET(static_cast<std::size_t>(cpu), &set);
      }
      sched_setaffinity(0, sizeof set, &set);
    }
    work();
  }).join();
}

const NumaNode* near_node(const facts::Topology& topology, const GpuDevice& gpu) {
  for (const NumaNode& node : topology.numa) {
    if (gpu.numa_node && node.id == *gpu.numa_node && !node.cpus.empty()) return &node;
  }
  return nullptr;
}

// The one whose distance from the near node is the largest, if it is another.
const NumaNode* far_node(const facts::Topology& topology, const NumaNode* near) {
  if (near == nullptr) return nullptr;
  const NumaNode* farthest = nullptr;
  std::int64_t most = 10;  // itself
  for (std::size_t i = 0; i < topology.numa.size() && i < near->distances.size(); ++i) {
    const NumaNode& node = topology.numa[i];
    if (node.cpus.empty() || near->distances[i] <= most) continue;
    most = near->distances[i];
    farthest = &node;
  }
  return farthest;
}

std::size_t buffer_of(const GpuDevice& gpu, std::size_t memory, const CopyOptions& options) {
  const std::int64_t used = gpu.memory_used ? gpu.memory_used->value() : 0;
  const std::int64_t free_on_gpu =
      std::max<std::int64_t>(0, static_cast<std::int64_t>(memory) - used);
  const std::int64_t most =
      std::min({options.buffer.value(), free_on_gpu / 4, options.host_memory_free.value() / 8});
  constexpr std::int64_t kPage = 1 << 20;
  return static_cast<std::size_t>(most / kPage * kPage);
}

void measure_near(Bench& bench, int runs, std::size_t bytes, facts::GpuRates& rates) {
  const auto pinned = bench.pinned();
  rates.to_device = bench.to_device("host to GPU, pinned", runs, pinned.get());
  rates.from_device = bench.from_device("GPU to host, pinned", runs, pinned.get());
  rates.device_copy = bench.inside(runs);
  const std::vector<char> written(bytes, 1);
  rates.to_device_pageable = bench.to_device("host to GPU, pageable", runs, written.data());
  std::vector<char> read(bytes, 1);
  rates.from_device_pageable = bench.from_device("GPU to host, pageable", runs, read.data());
}

// One try over everything: a failure is said and what was measured before it stays.
void guarded(GpuDevice& gpu, const std::function<void()>& work) {
  try {
    work();
  } catch (const Failure& failure) {
    gpu.problems.push_back(failure.what);
  } catch (const std::bad_alloc&) {
    gpu.problems.emplace_back("copies: not enough host memory");
  }
}

void measure_one(const CudaApi& api, CudaDevice device, const facts::Topology& topology,
                 GpuDevice& gpu, const CopyOptions& options) {
  std::size_t memory = 0;
  if (api.total_memory(&memory, device) != kCudaSuccess || memory == 0) {
    gpu.problems.emplace_back("memory: the CUDA driver does not say");
    return;
  }
  gpu.program_memory = {Bytes(static_cast<std::int64_t>(memory)), Provenance::measured,
                        "CUDA driver, what programs see"};
  const std::size_t bytes = buffer_of(gpu, memory, options);
  if (bytes == 0) {
    gpu.problems.emplace_back("copies: too little free memory to measure with");
    return;
  }
  const NumaNode* near = near_node(topology, gpu);
  on_node(near, [&] {
    guarded(gpu, [&] {
      Bench bench(api, device, bytes);
      measure_near(bench, options.runs, bytes, gpu.rates);
    });
  });
  const NumaNode* far = far_node(topology, near);
  if (far == nullptr || !gpu.rates.to_device) return;
  on_node(far, [&] {
    guarded(gpu, [&] {
      Bench bench(api, device, bytes);
      const auto pinned = bench.pinned();
      gpu.rates.to_device_far = bench.to_device("host to GPU, far", options.runs, pinned.get());
      gpu.rates.from_device_far = bench.from_device("GPU to host, far", options.runs, pinned.get());
    });
  });
}

std::string lower(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return text;
}

GpuDevice* gpu_at(facts::Topology& topology, const std::string& address) {
  for (GpuDevice& gpu : topology.gpus) {
    if (gpu.pci == address) return &gpu;
  }
  return nullptr;
}

void measure_all(const CudaApi& api, facts::Topology& topology, const CopyOptions& options) {
  int count = 0;
  if (const int result = api.count(&count); result != kCudaSuccess) {
    topology.warnings.push_back("the CUDA driver does not count the GPUs: " + api.name_of(result));
    return;
  }
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    CudaDevice device = 0;
    std::array<char, 32> address{};
    if (api.device(&device, ordinal) != kCudaSuccess ||
        api.pci(address.data(), static_cast<int>(address.size()) - 1, device) != kCudaSuccess) {
      topology.warnings.push_back(
          fmt::format("the CUDA driver does not say where its GPU {} is", ordinal));
      continue;
    }
    GpuDevice* gpu = gpu_at(topology, lower(address.data()));
    if (gpu != nullptr) measure_one(api, device, topology, *gpu, options);
  }
}

}  // namespace

void measure_copies(facts::Topology& topology, const CopyOptions& options) {
  const bool nvidia = std::any_of(topology.gpus.begin(), topology.gpus.end(),
                                  [](const GpuDevice& gpu) { return gpu.vendor == "nvidia"; });
  if (!nvidia) return;
  const std::string name = options.library.empty()
                               ? sense::library_name("STEELYARD_CUDA", "libcuda.so.1")
                               : options.library;
  const auto library = sense::SharedLibrary::open(name);
  if (!library) {
    topology.warnings.push_back(name + " cannot be loaded: copies were not measured");
    return;
  }
  const CudaApi api(*library);
  if (!api.complete()) {
    topology.warnings.push_back(name +
                                " lacks functions of the CUDA driver: copies were not measured");
    return;
  }
  if (const int result = api.init(0); result != kCudaSuccess) {
    topology.warnings.push_back("the CUDA driver does not start: " + api.name_of(result));
    return;
  }
  measure_all(api, topology, options);
}

}  // namespace steelyard::probe
