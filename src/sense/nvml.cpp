#include "sense/nvml.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "sense/devices.h"
#include "sense/nvml_api.h"

namespace steelyard::sense {
namespace {

using facts::GpuDevice;
using facts::Known;
using facts::Provenance;

// The buffer as text, whether or not the library ended it.
template <std::size_t n>
std::string text_of(const std::array<char, n>& buffer) {
  return {buffer.begin(), std::find(buffer.begin(), buffer.end(), '\0')};
}

// "00000000:17:00.0" as the kernel writes it: "0000:17:00.0".
std::string kernel_address(const NvmlPciInfo& info) {
  return fmt::format("{:04x}:{:02x}:{:02x}.0", info.domain, info.bus, info.device);
}

// Asks one GPU. A lost one answers nothing any more and is asked no further.
class Asking {
 public:
  Asking(const NvmlApi& api, NvmlDevice device, GpuDevice& gpu)
      : api_(api), device_(device), gpu_(gpu) {}

  void all() {
    identity();
    memory();
    power();
    modes();
    pcie();
    links();
  }

 private:
  // Whether `call` succeeded. `quiet`: what many GPUs do not support is no problem.
  template <class Function, class... Arguments>
  bool ask(const char* what, Function* function, Arguments... arguments) {
    if (lost_) return false;
    if (function == nullptr) {
      gpu_.problems.push_back(fmt::format("{}: this NVML is too old to tell", what));
      return false;
    }
    const int result = function(device_, arguments...);
    if (result == kNvmlSuccess) return true;
    if (result == kNvmlNotSupported) return false;
    lost_ = result == kNvmlGpuIsLost;
    if (lost_) gpu_.usable = false;
    gpu_.problems.push_back(fmt::format("{}: {}", what, reason(result)));
    return false;
  }

  [[nodiscard]] std::string reason(int result) const {
    const char* text = api_.error_string == nullptr ? nullptr : api_.error_string(result);
    return text == nullptr ? fmt::format("NVML error {}", result) : text;
  }

  void identity() {
    NvmlPciInfo pci{};
    if (ask("PCI address", api_.pci, &pci)) gpu_.pci = kernel_address(pci);
    std::array<char, kNvmlNameSize> name{};
    if (ask("name", api_.name, name.data(), kNvmlNameSize)) gpu_.name = text_of(name);
    int major = 0, minor = 0;
    if (ask("compute capability", api_.capability, &major, &minor)) {
      gpu_.compute_capability = major + minor / 10.0;
    }
  }

  void memory() {
    NvmlMemory memory{};
    if (!ask("memory", api_.memory, &memory)) return;
    constexpr unsigned long long kMost = 1ULL << 60;
    if (memory.total == 0 || memory.total > kMost || memory.used > memory.total) {
      gpu_.problems.push_back("memory: NVML answers what cannot be");
      return;
    }
    gpu_.memory = {Bytes(static_cast<std::int64_t>(memory.total)), Provenance::measured,
                   "NVML, total"};
    gpu_.memory_used = {Bytes(static_cast<std::int64_t>(memory.used)), Provenance::measured,
                        "NVML, used; the driver's reserve included"};
  }

  void power() {
    unsigned int milliwatts = 0;
    if (ask("power limit", api_.power_limit, &milliwatts)) {
      gpu_.power_limit_watts = {milliwatts / 1000.0, Provenance::measured, "NVML, enforced limit"};
    }
  }

  void modes() {
    unsigned int now = 0, later = 0;
    if (ask("ECC", api_.ecc, &now, &later)) gpu_.ecc = {now != 0, Provenance::measured, "NVML"};
    if (!ask("MIG", api_.mig, &now, &later)) return;
    gpu_.mig = {now != 0, Provenance::measured, "NVML"};
    if (now != 0) instances();
  }

  void instances() {
    unsigned int most = 0;
    if (!ask("MIG instances", api_.mig_most, &most)) return;
    constexpr unsigned int kMost = 64;
    for (unsigned int i = 0; i < std::min(most, kMost); ++i) {
      NvmlDevice handle = nullptr;
      if (api_.mig_handle == nullptr || api_.mig_handle(device_, i, &handle) != kNvmlSuccess) {
        continue;  // that place is empty
      }
      facts::GpuInstance instance;
      std::array<char, kNvmlNameSize> name{};
      if (api_.name != nullptr && api_.name(handle, name.data(), kNvmlNameSize) == kNvmlSuccess) {
        instance.name = text_of(name);
      }
      NvmlMemory memory{};
      if (api_.memory != nullptr && api_.memory(handle, &memory) == kNvmlSuccess &&
          memory.total > 0) {
        instance.memory = {Bytes(static_cast<std::int64_t>(memory.total)), Provenance::measured,
                           "NVML, total"};
      }
      gpu_.instances.push_back(std::move(instance));
    }
  }

  // Transfers per second and lane of the generations 1 to 6.
  static facts::PciLink link_of(unsigned int generation, unsigned int lanes) {
    constexpr std::array kTransfers = {2.5, 5.0, 8.0, 16.0, 32.0, 64.0};
    facts::PciLink link;
    if (generation < 1 || generation > kTransfers.size() || lanes == 0) return link;
    const double transfers = kTransfers[generation - 1];
    link.transfers = {transfers, Provenance::measured, "NVML, generation"};
    link.lanes = {static_cast<std::int64_t>(lanes), Provenance::measured, "NVML"};
    if (const auto rate = pci_rate(transfers, *link.lanes)) {
      link.rate = {*rate, Provenance::derived, "transfers x lanes x coding, one way, raw"};
    }
    return link;
  }

  void pcie() {
    unsigned int generation = 0, lanes = 0;
    if (ask("PCIe generation", api_.pcie_generation, &generation) &&
        ask("PCIe lanes", api_.pcie_lanes, &lanes)) {
      gpu_.link = link_of(generation, lanes);
    }
    if (ask("largest PCIe generation", api_.pcie_most_generation, &generation) &&
        ask("most PCIe lanes", api_.pcie_most_lanes, &lanes)) {
      gpu_.link_most = link_of(generation, lanes);
    }
  }

  // MB/s of one link, one way. Older drivers know one speed for all of them.
  [[nodiscard]] std::optional<double> link_speed(unsigned int link) const {
    if (api_.field_values == nullptr) return std::nullopt;
    for (const unsigned int field : {kNvmlFieldLinkSpeed, kNvmlFieldCommonSpeed}) {
      NvmlFieldValue value{};
      value.field_id = field;
      value.scope_id = field == kNvmlFieldLinkSpeed ? link : 0;
      if (api_.field_values(device_, 1, &value) != kNvmlSuccess) continue;
      if (value.nvml_return == kNvmlSuccess && value.value.whole > 0) return value.value.whole;
    }
    return std::nullopt;
  }

  facts::GpuLinks peer_of(unsigned int link) {
    facts::GpuLinks peer;
    int type = -1;
    if (api_.link_peer_type != nullptr &&
        api_.link_peer_type(device_, link, &type) == kNvmlSuccess) {
      peer.peer = type == kNvmlLinkToGpu      ? facts::GpuPeer::gpu
                  : type == kNvmlLinkToSwitch ? facts::GpuPeer::gpu_switch
                  : type == kNvmlLinkToNpu    ? facts::GpuPeer::host
                                              : facts::GpuPeer::unknown;
    }
    NvmlPciInfo pci{};
    if (api_.link_peer_pci != nullptr && peer.peer != facts::GpuPeer::gpu_switch &&
        api_.link_peer_pci(device_, link, &pci) == kNvmlSuccess) {
      peer.peer_pci = kernel_address(pci);
    }
    return peer;
  }

  // Links with one peer are put together. A GPU without NVLink says so at the first link.
  void links() {
    for (unsigned int link = 0; link < kNvmlMostLinks && !lost_; ++link) {
      unsigned int active = 0;
      if (api_.link_state == nullptr) return;
      const int result = api_.link_state(device_, link, &active);
      if (result == kNvmlNotSupported || result == kNvmlInvalidArgument) return;
      if (result != kNvmlSuccess || active == 0) continue;
      add_link(peer_of(link), link_speed(link));
    }
  }

  void add_link(facts::GpuLinks peer, std::optional<double> megabytes) {
    auto same = std::find_if(gpu_.links.begin(), gpu_.links.end(), [&](const auto& other) {
      return other.peer == peer.peer && other.peer_pci == peer.peer_pci;
    });
    if (same == gpu_.links.end()) same = gpu_.links.insert(gpu_.links.end(), std::move(peer));
    const bool first = same->count++ == 0;
    if (!megabytes || (!first && !same->rate)) {
      same->rate = {};  // a sum with an unknown part is unknown
      return;
    }
    const double before = same->rate ? same->rate->value() : 0;
    same->rate = {BytesPerSecond(before + *megabytes * 1e6), Provenance::measured,
                  "NVML, speed of the links, one way"};
  }

  const NvmlApi& api_;
  NvmlDevice device_;
  GpuDevice& gpu_;
  bool lost_ = false;
};

std::string reason_of(const NvmlApi& api, int result) {
  const char* text = api.error_string == nullptr ? nullptr : api.error_string(result);
  return text == nullptr ? fmt::format("NVML error {}", result) : text;
}

void ask_all(const NvmlApi& api, NvmlAnswer& answer) {
  std::array<char, 80> version{};  // NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE
  if (api.driver_version != nullptr &&
      api.driver_version(version.data(), version.size()) == kNvmlSuccess) {
    answer.driver = text_of(version);
  }
  unsigned int count = 0;
  if (const int result = api.count(&count); result != kNvmlSuccess) {
    answer.problem = "NVML does not count the GPUs: " + reason_of(api, result);
    return;
  }
  constexpr unsigned int kMostGpus = 1024;
  for (unsigned int i = 0; i < std::min(count, kMostGpus); ++i) {
    GpuDevice gpu;
    gpu.index = i;
    gpu.vendor = "nvidia";
    NvmlDevice device = nullptr;
    if (const int result = api.handle(i, &device); result != kNvmlSuccess) {
      gpu.problems.push_back("NVML does not open it: " + reason_of(api, result));
      gpu.usable = false;
    } else {
      Asking(api, device, gpu).all();
    }
    answer.gpus.push_back(std::move(gpu));
  }
}

// What only the kernel knows stays; the driver's word on names, memory and links goes first.
void take(GpuDevice& kernel, const GpuDevice& driver) {
  GpuDevice joined = driver;
  joined.index = kernel.index;
  joined.pci = kernel.pci;
  joined.numa_node = kernel.numa_node;
  if (joined.name.empty()) joined.name = kernel.name;
  if (!joined.link.rate) joined.link = kernel.link;
  if (!joined.link_most.rate) joined.link_most = kernel.link_most;
  kernel = std::move(joined);
}

}  // namespace

NvmlAnswer ask_nvml(const std::string& library) {
  NvmlAnswer answer;
  const std::string name =
      library.empty() ? library_name("STEELYARD_NVML", "libnvidia-ml.so.1") : library;
  const auto opened = SharedLibrary::open(name);
  if (!opened) {
    answer.problem = name + " cannot be loaded";
    return answer;
  }
  answer.loaded = true;
  const NvmlApi api(*opened);
  if (api.init == nullptr || api.count == nullptr || api.handle == nullptr) {
    answer.problem = name + " lacks the functions of NVML";
    return answer;
  }
  if (const int result = api.init(); result != kNvmlSuccess) {
    answer.problem = "NVML does not start: " + reason_of(api, result);
    return answer;
  }
  ask_all(api, answer);
  if (api.shutdown != nullptr) api.shutdown();
  return answer;
}

void join(facts::Topology& topology, const NvmlAnswer& answer) {
  if (!answer.driver.empty()) topology.gpu_driver = "nvidia " + answer.driver;
  const bool nvidia_here = std::any_of(topology.gpus.begin(), topology.gpus.end(),
                                       [](const GpuDevice& gpu) { return gpu.vendor == "nvidia"; });
  if (!answer.problem.empty()) {
    if (answer.loaded || nvidia_here) topology.warnings.push_back(answer.problem);
    return;
  }
  for (GpuDevice& gpu : topology.gpus) {
    if (gpu.vendor != "nvidia") continue;
    const auto same = std::find_if(answer.gpus.begin(), answer.gpus.end(),
                                   [&](const GpuDevice& other) { return other.pci == gpu.pci; });
    if (same != answer.gpus.end()) {
      take(gpu, *same);
    } else {
      gpu.problems.emplace_back("the driver does not show it to this process");
      gpu.usable = false;
    }
  }
  for (const GpuDevice& gpu : answer.gpus) {
    const bool listed = std::any_of(topology.gpus.begin(), topology.gpus.end(),
                                    [&](const GpuDevice& own) { return own.pci == gpu.pci; });
    if (listed) continue;
    topology.gpus.push_back(gpu);
    topology.gpus.back().index = static_cast<std::int64_t>(topology.gpus.size()) - 1;
  }
}

}  // namespace steelyard::sense
