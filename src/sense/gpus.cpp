#include "sense/gpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "sense/devices.h"
#include "sense/words.h"

namespace steelyard::sense {
namespace {

using facts::GpuDevice;
using facts::Known;
using facts::Provenance;

constexpr std::int64_t kNvidia = 0x10de, kAmd = 0x1002, kIntel = 0x8086;

const char* vendor_name(std::int64_t vendor) {
  if (vendor == kNvidia) return "nvidia";
  if (vendor == kAmd) return "amd";
  if (vendor == kIntel) return "intel";
  return "";
}

// VGA, 3D and other display controllers, and processing accelerators (Instinct).
bool is_gpu(const PciDevice& device) {
  const std::int64_t kind = device.kind >> 8;
  const bool display = kind == 0x0300 || kind == 0x0302 || kind == 0x0380;
  const bool accelerator = kind == 0x1200;
  if (device.vendor == kIntel)
    return kind == 0x0380;  // Data Center GPU; 0x0300 is in the processor
  return *vendor_name(device.vendor) != '\0' && (display || accelerator);
}

Known<Bytes> bytes_in(const Tree& tree, const std::string& file) {
  const auto bytes = tree.number(file);
  if (!bytes || *bytes <= 0) return {};
  return {Bytes(*bytes), Provenance::measured, file};
}

// Microwatts of the card's power limit, in one of its hwmon folders.
Known<double> power_limit(const Tree& tree, const std::string& folder) {
  for (const std::string& monitor : tree.names(folder + "/hwmon")) {
    const std::string file = fmt::format("{}/hwmon/{}/power1_cap", folder, monitor);
    const auto microwatts = tree.number(file);
    if (microwatts && *microwatts > 0) {
      return {static_cast<double>(*microwatts) / 1e6, Provenance::measured, file};
    }
  }
  return {};
}

void read_amd(const Tree& tree, GpuDevice& gpu) {
  const std::string folder = "/sys/bus/pci/devices/" + gpu.pci;
  gpu.name = tree.text(folder + "/product_name").value_or("");
  gpu.memory = bytes_in(tree, folder + "/mem_info_vram_total");
  gpu.memory_used = bytes_in(tree, folder + "/mem_info_vram_used");
  gpu.power_limit_watts = power_limit(tree, folder);
}

void read_nvidia(const Tree& tree, GpuDevice& gpu) {
  const std::string text =
      tree.text(fmt::format("/proc/driver/nvidia/gpus/{}/information", gpu.pci)).value_or("");
  if (const auto name = value_in(text, "Model")) gpu.name = *name;
}

std::optional<std::int64_t> property(std::string_view text, std::string_view key) {
  for (const std::string_view line : lines_of(text)) {
    const std::vector<std::string_view> words = words_of(line);
    if (words.size() == 2 && words[0] == key) return whole(words[1]);
  }
  return std::nullopt;
}

// amdkfd numbers processors and GPUs as nodes; a GPU's node says its PCI bus in `location_id`.
struct KfdNode {
  std::string folder;
  std::string pci;  // empty: a processor
};

std::vector<KfdNode> kfd_nodes(const Tree& tree) {
  const std::string all = "/sys/class/kfd/kfd/topology/nodes";
  std::vector<KfdNode> nodes;
  for (std::int64_t n = 0; n < static_cast<std::int64_t>(tree.names(all).size()); ++n) {
    KfdNode node{fmt::format("{}/{}", all, n), ""};
    const std::string text = tree.text(node.folder + "/properties").value_or("");
    const auto location = property(text, "location_id");
    if (location && *location > 0) {
      const auto domain = property(text, "domain").value_or(0);
      node.pci = fmt::format("{:04x}:{:02x}:{:02x}.{:x}", domain, *location >> 8 & 0xff,
                             *location >> 3 & 0x1f, *location & 7);
    }
    nodes.push_back(std::move(node));
  }
  return nodes;
}

// Links of type 11 are xGMI (HSA_IOLINK_TYPE_XGMI); their rate is in 10^6 bytes per second.
void add_xgmi(const Tree& tree, const std::vector<KfdNode>& nodes, const KfdNode& own,
              GpuDevice& gpu) {
  constexpr std::int64_t kXgmi = 11;
  for (const std::string& link : tree.names(own.folder + "/io_links")) {
    const std::string file = fmt::format("{}/io_links/{}/properties", own.folder, link);
    const std::string text = tree.text(file).value_or("");
    const auto to = property(text, "node_to");
    if (property(text, "type") != kXgmi || !to || *to < 0) continue;
    if (static_cast<std::size_t>(*to) >= nodes.size()) continue;
    const KfdNode& peer = nodes[static_cast<std::size_t>(*to)];
    facts::GpuLinks links{.peer = peer.pci.empty() ? facts::GpuPeer::host : facts::GpuPeer::gpu,
                          .peer_pci = peer.pci,
                          .count = 1,
                          .rate = {}};
    const auto megabytes = property(text, "max_bandwidth");
    if (megabytes && *megabytes > 0) {
      links.rate = {BytesPerSecond(static_cast<double>(*megabytes) * 1e6), Provenance::measured,
                    file};
    }
    gpu.links.push_back(std::move(links));
  }
}

}  // namespace

std::vector<GpuDevice> gpus(const Tree& tree) {
  std::vector<GpuDevice> found;
  const std::vector<KfdNode> nodes = kfd_nodes(tree);
  for (const PciDevice& device : pci_devices(tree)) {
    if (!is_gpu(device)) continue;
    GpuDevice gpu;
    gpu.index = static_cast<std::int64_t>(found.size());
    gpu.vendor = vendor_name(device.vendor);
    gpu.pci = device.address;
    gpu.numa_node = device.numa_node;
    gpu.link = device.link;
    gpu.link_most = device.link_most;
    if (device.vendor == kNvidia) read_nvidia(tree, gpu);
    if (device.vendor == kAmd) read_amd(tree, gpu);
    for (const KfdNode& node : nodes) {
      if (node.pci == gpu.pci) add_xgmi(tree, nodes, node, gpu);
    }
    found.push_back(std::move(gpu));
  }
  return found;
}

std::string gpu_driver(const Tree& tree) {
  // "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 ..."
  const std::string nvidia = tree.text("/proc/driver/nvidia/version").value_or("");
  for (const std::string_view word : words_of(nvidia)) {
    if (word.find('.') != std::string_view::npos &&
        leading_number(word.substr(0, word.find('.')))) {
      return "nvidia " + std::string(word);
    }
  }
  if (const auto amd = tree.text("/sys/module/amdgpu/version")) return "amdgpu " + *amd;
  return tree.names("/sys/module/amdgpu").empty() ? "" : "amdgpu";
}

}  // namespace steelyard::sense
