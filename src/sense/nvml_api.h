// The part of NVML's binary interface that is used, with NVIDIA's names (nvml.h, pynvml.py).
#pragma once

#include <cstdint>

#include "sense/shared_library.h"

namespace steelyard::sense {

using NvmlDevice = void*;  // nvmlDevice_t: a pointer that only NVML reads

enum NvmlReturn : int {  // nvmlReturn_t
  kNvmlSuccess = 0,
  kNvmlInvalidArgument = 2,
  kNvmlNotSupported = 3,
  kNvmlNotFound = 6,
  kNvmlDriverNotLoaded = 9,
  kNvmlGpuIsLost = 15,
};

struct NvmlMemory {  // nvmlMemory_t, bytes
  unsigned long long total, free, used;
};

struct NvmlPciInfo {  // nvmlPciInfo_t
  char bus_id_legacy[16];
  unsigned int domain, bus, device, pci_device_id, pci_subsystem_id;
  char bus_id[32];
};
static_assert(sizeof(NvmlPciInfo) == 68);

struct NvmlFieldValue {  // nvmlFieldValue_t
  unsigned int field_id, scope_id;
  long long timestamp, latency_us;
  int value_type, nvml_return;
  union {
    double real;
    unsigned int whole;
    unsigned long long long_whole;
  } value;
};
static_assert(sizeof(NvmlFieldValue) == 40);

constexpr unsigned int kNvmlFieldLinkSpeed = 164;   // NVML_FI_DEV_NVLINK_GET_SPEED, MB/s, one link
constexpr unsigned int kNvmlFieldCommonSpeed = 90;  // NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON
constexpr unsigned int kNvmlMostLinks = 36;         // NVML_NVLINK_MAX_LINKS
constexpr int kNvmlLinkToGpu = 0, kNvmlLinkToNpu = 1, kNvmlLinkToSwitch = 2;
constexpr unsigned int kNvmlNameSize = 96;  // NVML_DEVICE_NAME_V2_BUFFER_SIZE

// Null where the library is older than the function.
struct NvmlApi {
  explicit NvmlApi(const SharedLibrary& library);

  int (*init)() = nullptr;
  int (*shutdown)() = nullptr;
  const char* (*error_string)(int) = nullptr;
  int (*driver_version)(char*, unsigned int) = nullptr;
  int (*count)(unsigned int*) = nullptr;
  int (*handle)(unsigned int, NvmlDevice*) = nullptr;
  int (*name)(NvmlDevice, char*, unsigned int) = nullptr;
  int (*pci)(NvmlDevice, NvmlPciInfo*) = nullptr;
  int (*memory)(NvmlDevice, NvmlMemory*) = nullptr;
  int (*capability)(NvmlDevice, int*, int*) = nullptr;
  int (*power_limit)(NvmlDevice, unsigned int*) = nullptr;  // milliwatts
  int (*ecc)(NvmlDevice, unsigned int*, unsigned int*) = nullptr;
  int (*mig)(NvmlDevice, unsigned int*, unsigned int*) = nullptr;
  int (*mig_most)(NvmlDevice, unsigned int*) = nullptr;
  int (*mig_handle)(NvmlDevice, unsigned int, NvmlDevice*) = nullptr;
  int (*pcie_generation)(NvmlDevice, unsigned int*) = nullptr;
  int (*pcie_lanes)(NvmlDevice, unsigned int*) = nullptr;
  int (*pcie_most_generation)(NvmlDevice, unsigned int*) = nullptr;
  int (*pcie_most_lanes)(NvmlDevice, unsigned int*) = nullptr;
  int (*link_state)(NvmlDevice, unsigned int, unsigned int*) = nullptr;
  int (*link_peer_pci)(NvmlDevice, unsigned int, NvmlPciInfo*) = nullptr;
  int (*link_peer_type)(NvmlDevice, unsigned int, int*) = nullptr;
  int (*field_values)(NvmlDevice, int, NvmlFieldValue*) = nullptr;
};

}  // namespace steelyard::sense
