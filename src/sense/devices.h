// Drives, network interfaces and PCI devices (kernel: ABI/testing/sysfs-bus-pci,
// ABI/stable/sysfs-block, ABI/testing/sysfs-class-net, ABI/stable/sysfs-class-infiniband).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "facts/topology.h"
#include "sense/tree.h"

namespace steelyard::sense {

struct PciDevice {
  std::string address;  // 0000:17:00.0
  std::int64_t vendor = 0;
  std::int64_t device = 0;
  std::int64_t kind = 0;  // class code, 24 bits: 0x030200 is a 3D controller
  std::string driver;     // empty: none
  facts::Known<std::int64_t> numa_node;
  facts::PciLink link, link_most;
};

[[nodiscard]] std::optional<PciDevice> pci_device(const Tree& tree, const std::string& address);
[[nodiscard]] std::vector<PciDevice> pci_devices(const Tree& tree);

// The address of the PCI function that the folder of a device lies below; "" where there is none.
[[nodiscard]] std::string pci_address_of(const Tree& tree, const std::string& device_link);

// Whole drives without what only the kernel imagines (loop, ram, zram, device mapper, md).
[[nodiscard]] std::vector<facts::Drive> drives(const Tree& tree);

// Ethernet interfaces of devices, and InfiniBand ports by their own names (mlx5_0).
[[nodiscard]] std::vector<facts::NetworkInterface> network(const Tree& tree);

// One way, raw: transfers x lanes x 8/10 (2.5 and 5 GT/s), 128/130 (8 to 32) or 242/256 (64,
// FLITs).
[[nodiscard]] std::optional<BytesPerSecond> pci_rate(double transfers, std::int64_t lanes);

}  // namespace steelyard::sense
