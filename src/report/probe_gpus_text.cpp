#include <fmt/format.h>

#include "base/format.h"
#include "base/text_table.h"
#include "report/probe_text.h"

namespace steelyard::report {
namespace {

std::string link_text(const facts::PciLink& link) {
  if (!link.rate) return "";
  return fmt::format("{} ({:.3g} GT/s x {} lanes)", to_text(*link.rate), *link.transfers,
                     *link.lanes);
}

std::string peer_text(const facts::GpuLinks& links) {
  std::string text = fmt::format("{} link{} to ", links.count, links.count == 1 ? "" : "s");
  switch (links.peer) {
    case facts::GpuPeer::gpu: text += "GPU"; break;
    case facts::GpuPeer::gpu_switch: text += "a switch"; break;
    case facts::GpuPeer::host: text += "the host"; break;
    case facts::GpuPeer::unknown: text += "something unknown"; break;
  }
  if (!links.peer_pci.empty() && links.peer == facts::GpuPeer::gpu) text += " " + links.peer_pci;
  return text;
}

class Rows {
 public:
  explicit Rows(const Paint& paint) : paint_(paint), table_({{""}, {""}, {""}}) {}
  void add(std::string name, std::string_view value, std::string_view how = {}) {
    constexpr std::size_t kNameAndValue = 52;
    const std::size_t room = std::max<std::size_t>(paint_.columns(), kNameAndValue + 20);
    if (!value.empty()) {
      table_.add({std::move(name), paint_.outside(value),
                  paint_.ink(paint_.outside(shortened(how, room - kNameAndValue)), Ink::quiet)});
    }
  }
  template <class T>
  void rate(std::string name, const facts::Known<T>& known) {
    if (known) add(std::move(name), to_text(*known), known.note);
  }
  [[nodiscard]] std::string text() const { return table_.text(4); }

 private:
  const Paint& paint_;
  TextTable table_;
};

void add_state(Rows& rows, const facts::GpuDevice& gpu) {
  rows.add("memory", gpu.memory ? to_text(*gpu.memory) : "unknown", gpu.memory.note);
  rows.rate("programs see", gpu.program_memory);
  rows.rate("in use", gpu.memory_used);
  if (gpu.compute_capability) {
    rows.add("compute capability", fmt::format("{:.1f}", *gpu.compute_capability));
  }
  if (gpu.power_limit_watts) {
    rows.add("power limit", fmt::format("{:.0f} W", *gpu.power_limit_watts),
             gpu.power_limit_watts.note);
  }
  rows.add("PCIe now", link_text(gpu.link));
  rows.add("PCIe at most", link_text(gpu.link_most));
  for (const facts::GpuLinks& links : gpu.links) {
    rows.add(peer_text(links), links.rate ? to_text(*links.rate) : "unknown rate",
             "one way, all together");
  }
  if (gpu.ecc) rows.add("ECC", *gpu.ecc ? "on" : "off");
  if (gpu.mig) rows.add("MIG", *gpu.mig ? "on" : "off");
  for (const facts::GpuInstance& instance : gpu.instances) {
    rows.add("instance", instance.memory ? to_text(*instance.memory) : "unknown", instance.name);
  }
  if (gpu.numa_node) rows.add("NUMA node", fmt::format("{}", *gpu.numa_node), gpu.numa_node.note);
}

void add_rates(Rows& rows, const facts::GpuRates& rates) {
  rows.rate("host to GPU, pinned", rates.to_device);
  rows.rate("GPU to host, pinned", rates.from_device);
  rows.rate("host to GPU, far node", rates.to_device_far);
  rows.rate("GPU to host, far node", rates.from_device_far);
  rows.rate("host to GPU, pageable", rates.to_device_pageable);
  rows.rate("GPU to host, pageable", rates.from_device_pageable);
  rows.rate("copy inside the GPU", rates.device_copy);
  rows.rate("tf32 GEMM", rates.tf32);
  rows.rate("fp16 GEMM", rates.fp16);
  rows.rate("bf16 GEMM", rates.bf16);
  rows.rate("fp8 GEMM", rates.fp8);
}

}  // namespace

std::string gpus_text(const facts::Topology& topology, const Paint& paint) {
  if (topology.gpus.empty()) return paint.ink("No GPU", Ink::strong) + "\n\n";
  std::string text = paint.ink("GPUs", Ink::strong);
  if (!topology.gpu_driver.empty()) text += "  driver " + paint.outside(topology.gpu_driver);
  text += "\n";
  for (const facts::GpuDevice& gpu : topology.gpus) {
    Rows rows(paint);
    text += fmt::format("  GPU {}  {}  {}\n", gpu.index,
                        gpu.name.empty() ? paint.outside(gpu.vendor) : paint.outside(gpu.name),
                        paint.outside(gpu.pci));
    add_state(rows, gpu);
    add_rates(rows, gpu.rates);
    text += rows.text();
    for (const std::string& problem : gpu.problems) text += "    " + paint.outside(problem) + "\n";
  }
  return text + "\n";
}

}  // namespace steelyard::report
