#include "pace/figures.h"

#include <algorithm>
#include <utility>

namespace steelyard::pace {
namespace {

using facts::DType;
using facts::Gpu;

std::string gpu_name(const Gpu& gpu) {
  if (!gpu.name.empty()) return gpu.name;
  return gpu.id.empty() ? std::string("the GPU") : gpu.id;
}

const char* name_of(DType type, bool tf32) {
  switch (type) {
    case DType::fp32: return tf32 ? "tf32" : "fp32";
    case DType::bf16: return "bf16";
    case DType::fp16: return "fp16";
    case DType::fp8: return "fp8";
    case DType::fp4: return "fp4";
    case DType::int8: return "int8";
    case DType::int32:
    case DType::int64:
    case DType::boolean: return "integer";
  }
  return "fp32";
}

std::optional<FlopsPerSecond> known_peak(const Gpu& gpu, DType type, bool tf32) {
  switch (type) {
    case DType::fp32: return (tf32 && !before_ampere(gpu) ? gpu.peak.tf32 : gpu.peak.fp32).value;
    case DType::bf16: return gpu.peak.bf16.value;
    case DType::fp16: return gpu.peak.fp16.value;
    case DType::fp8: return gpu.peak.fp8.value;
    case DType::fp4: return gpu.peak.fp4.value;
    case DType::int8:
    case DType::int32:
    case DType::int64:
    case DType::boolean: return std::nullopt;
  }
  return std::nullopt;
}

// A rate of zero says that there is no such path.
template <class Rate>
std::optional<Rate> positive(const facts::Known<Rate>& figure) {
  return figure && figure->value() > 0.0 ? figure.value : std::nullopt;
}

}  // namespace

bool before_ampere(const Gpu& gpu) {
  return gpu.compute_capability.has_value() && *gpu.compute_capability < 8.0;
}

double vector_lanes(double compute_capability) {
  return compute_capability >= 7.0 && compute_capability < 8.1 ? 64.0 : 128.0;
}

double exponentials(double compute_capability) {
  const bool doubled = compute_capability > 10.2 && compute_capability < 10.4;
  return doubled ? 2.0 * kExponentials : kExponentials;
}

void Missing::add(std::string what) {
  if (std::find(names_.begin(), names_.end(), what) == names_.end()) {
    names_.push_back(std::move(what));
  }
}

std::optional<FlopsPerSecond> peak_rate(const Gpu& gpu, DType type, bool tf32, Missing& missing) {
  const std::optional<FlopsPerSecond> rate = known_peak(gpu, type, tf32);
  if (rate && rate->value() > 0.0) return rate;
  missing.add(std::string("dense ") + name_of(type, tf32) + " peak rate of " + gpu_name(gpu));
  return std::nullopt;
}

std::optional<FlopsPerSecond> peak_rate(const Gpu& gpu, facts::Precision precision) {
  using facts::Precision;
  switch (precision) {
    case Precision::fp32: return known_peak(gpu, DType::fp32, false);
    case Precision::tf32: return known_peak(gpu, DType::fp32, true);
    case Precision::fp16_mixed:
    case Precision::fp16: return known_peak(gpu, DType::fp16, false);
    case Precision::bf16_mixed:
    case Precision::bf16: return known_peak(gpu, DType::bf16, false);
    case Precision::fp8_mixed:
    case Precision::mxfp8_mixed: return known_peak(gpu, DType::fp8, false);
    case Precision::nvfp4_mixed: return known_peak(gpu, DType::fp4, false);
  }
  return std::nullopt;
}

std::optional<BytesPerSecond> memory_bandwidth(const Gpu& gpu, Missing& missing) {
  if (auto rate = positive(gpu.memory_bandwidth)) return rate;
  missing.add("memory bandwidth of " + gpu_name(gpu));
  return std::nullopt;
}

std::optional<Link> link_inside_node(const Gpu& gpu, std::int64_t ranks, Missing& missing) {
  const bool joins = gpu.link_gpus == 0 || ranks <= gpu.link_gpus || !positive(gpu.host_link);
  if (auto rate = positive(gpu.link); rate && joins) return Link{*rate, false};
  if (auto rate = positive(gpu.host_link)) return Link{*rate, true};
  missing.add("GPU link and host link of " + gpu_name(gpu));
  return std::nullopt;
}

std::optional<BytesPerSecond> host_link(const Gpu& gpu, Missing& missing) {
  if (auto rate = positive(gpu.host_link)) return rate;
  missing.add("host link of " + gpu_name(gpu));
  return std::nullopt;
}

std::optional<BytesPerSecond> network(const facts::Machine& machine, Missing& missing) {
  if (auto rate = positive(machine.network_per_gpu)) return rate;
  const std::string& name = machine.id.empty() ? machine.name : machine.id;
  missing.add("network rate per GPU of " + (name.empty() ? std::string("the machine") : name));
  return std::nullopt;
}

}  // namespace steelyard::pace
