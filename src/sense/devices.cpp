#include "sense/devices.h"

#include <fmt/format.h>

#include <array>
#include <charconv>

#include "sense/words.h"

namespace steelyard::sense {
namespace {

using facts::Known;
using facts::Provenance;

constexpr const char* kPci = "/sys/bus/pci/devices";

// "0x10de"
std::int64_t hexadecimal(std::string_view text) {
  if (text.starts_with("0x")) text.remove_prefix(2);
  std::int64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value, 16);
  return value;
}

// -1 is the kernel's "unknown": one node, or a firmware that does not say.
Known<std::int64_t> numa_node(const Tree& tree, const std::string& folder) {
  const auto node = tree.number(folder + "/numa_node");
  if (!node || *node < 0) return {};
  return {*node, Provenance::measured, folder + "/numa_node"};
}

facts::PciLink link_of(const Tree& tree, const std::string& folder, const char* which) {
  const std::string speed_file = fmt::format("{}/{}_link_speed", folder, which);
  const std::string speed = tree.text(speed_file).value_or("");
  const auto lanes = tree.number(fmt::format("{}/{}_link_width", folder, which));
  const auto transfers = leading_number(speed);  // "32.0 GT/s PCIe"; "Unknown"
  facts::PciLink link;
  if (transfers) link.transfers = {*transfers, Provenance::measured, speed_file};
  constexpr std::int64_t kUnknownWidth = 63;  // of a virtual function, or without a link
  if (lanes && *lanes > 0 && *lanes < kUnknownWidth) {
    link.lanes = {*lanes, Provenance::measured, fmt::format("{}/{}_link_width", folder, which)};
  }
  if (link.transfers && link.lanes) {
    if (const auto rate = pci_rate(*link.transfers, *link.lanes)) {
      link.rate = {*rate, Provenance::derived, "transfers x lanes x coding, one way, raw"};
    }
  }
  return link;
}

bool is_pci_address(std::string_view part) {  // 0000:17:00.0
  return part.size() >= 12 && part[part.size() - 8] == ':' && part[part.size() - 5] == ':' &&
         part[part.size() - 2] == '.';
}

bool imagined(std::string_view name) {
  constexpr std::array kPrefixes = {"loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd"};
  for (const std::string_view prefix : kPrefixes) {
    if (name.starts_with(prefix)) return true;
  }
  return false;
}

constexpr double kMegabit = 1e6 / 8.0;

// The folder of a class is a link into the tree of devices: .../0000:00:03.0/virtio2/net/eth0.
facts::NetworkInterface with_device(const Tree& tree, const std::string& folder,
                                    facts::NetworkInterface found) {
  found.pci = pci_address_of(tree, folder);
  if (found.pci.empty()) return found;
  const std::string device = fmt::format("{}/{}", kPci, found.pci);
  found.numa_node = numa_node(tree, device);
  if (const auto driver = tree.link(device + "/driver")) found.driver = last_part(*driver);
  return found;
}

void add_infiniband(const Tree& tree, std::vector<facts::NetworkInterface>& found) {
  const std::string folder = "/sys/class/infiniband";
  for (const std::string& name : tree.names(folder)) {
    const std::string port = fmt::format("{}/{}/ports/1", folder, name);
    // A RoCE port is the Ethernet interface that is listed already.
    if (tree.text(port + "/link_layer").value_or("") != "InfiniBand") continue;
    facts::NetworkInterface one;
    one.name = name;
    one.kind = "infiniband";
    one.up = tree.text(port + "/state").value_or("").find("ACTIVE") != std::string::npos;
    const std::string rate = tree.text(port + "/rate").value_or("");  // "400 Gb/sec (4X NDR)"
    if (const auto gigabits = leading_number(rate)) {
      one.speed = {BytesPerSecond(*gigabits * 1e9 / 8.0), Provenance::measured, port + "/rate"};
    }
    found.push_back(with_device(tree, folder + "/" + name, std::move(one)));
  }
}

}  // namespace

std::optional<BytesPerSecond> pci_rate(double transfers, std::int64_t lanes) {
  if (!(transfers > 0) || lanes <= 0) return std::nullopt;
  constexpr double kEightOfTen = 8.0 / 10.0;   // PCIe 1 and 2
  constexpr double kLongCode = 128.0 / 130.0;  // PCIe 3 to 5
  constexpr double kFlit = 242.0 / 256.0;      // PCIe 6: 14 bytes of check and correction
  constexpr double kOldest = 6.0, kLastOfLongCode = 40.0;
  const double coding = transfers < kOldest           ? kEightOfTen
                        : transfers < kLastOfLongCode ? kLongCode
                                                      : kFlit;
  return BytesPerSecond(transfers * 1e9 / 8.0 * coding * static_cast<double>(lanes));
}

std::optional<PciDevice> pci_device(const Tree& tree, const std::string& address) {
  const std::string folder = fmt::format("{}/{}", kPci, address);
  const auto vendor = tree.text(folder + "/vendor");
  if (!vendor) return std::nullopt;
  PciDevice device;
  device.address = address;
  device.vendor = hexadecimal(*vendor);
  device.device = hexadecimal(tree.text(folder + "/device").value_or(""));
  device.kind = hexadecimal(tree.text(folder + "/class").value_or(""));
  if (const auto driver = tree.link(folder + "/driver")) device.driver = last_part(*driver);
  device.numa_node = numa_node(tree, folder);
  device.link = link_of(tree, folder, "current");
  device.link_most = link_of(tree, folder, "max");
  return device;
}

std::vector<PciDevice> pci_devices(const Tree& tree) {
  std::vector<PciDevice> found;
  for (const std::string& address : tree.names(kPci)) {
    if (auto device = pci_device(tree, address)) found.push_back(std::move(*device));
  }
  return found;
}

std::string pci_address_of(const Tree& tree, const std::string& device_link) {
  const auto link = tree.link(device_link);
  if (!link) return "";
  std::string found;
  std::string_view rest = *link;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('/'), rest.size());
    if (is_pci_address(rest.substr(0, end))) found = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return found;
}

std::vector<facts::Drive> drives(const Tree& tree) {
  const std::string all = "/sys/block";
  constexpr std::int64_t kSector = 512;  // of this file, whatever the drive's own is
  std::vector<facts::Drive> found;
  for (const std::string& name : tree.names(all)) {
    if (imagined(name)) continue;
    const std::string folder = all + "/" + name;
    const auto sectors = tree.number(folder + "/size");
    if (!sectors || *sectors <= 0) continue;  // no medium
    facts::Drive drive;
    drive.name = name;
    drive.model = tree.text(folder + "/device/model").value_or("");
    drive.size = {Bytes(*sectors) * kSector, Provenance::measured, folder + "/size"};
    if (const auto rotates = tree.number(folder + "/queue/rotational")) {
      drive.rotational = {*rotates != 0, Provenance::measured, folder + "/queue/rotational"};
    }
    drive.pci = pci_address_of(tree, folder);
    if (!drive.pci.empty())
      drive.numa_node = numa_node(tree, fmt::format("{}/{}", kPci, drive.pci));
    found.push_back(std::move(drive));
  }
  return found;
}

std::vector<facts::NetworkInterface> network(const Tree& tree) {
  const std::string folder = "/sys/class/net";
  std::vector<facts::NetworkInterface> found;
  for (const std::string& name : tree.names(folder)) {
    const std::string one = folder + "/" + name;
    if (!tree.link(one + "/device")) continue;  // lo, bridges, tunnels
    constexpr std::int64_t kEthernet = 1;       // ARPHRD_ETHER, linux/if_arp.h
    if (tree.number(one + "/type") != kEthernet) continue;
    facts::NetworkInterface interface;
    interface.name = name;
    interface.kind = "ethernet";
    interface.up = tree.text(one + "/operstate").value_or("") == "up";
    const auto megabits = tree.number(one + "/speed");  // -1: unknown, as of most virtual ones
    if (megabits && *megabits > 0) {
      interface.speed = {BytesPerSecond(static_cast<double>(*megabits) * kMegabit),
                         Provenance::measured, one + "/speed"};
    }
    found.push_back(with_device(tree, one, std::move(interface)));
  }
  add_infiniband(tree, found);
  return found;
}

}  // namespace steelyard::sense
