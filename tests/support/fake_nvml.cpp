// A library with NVML's functions that tells of GPUs as a test wants them: the environment variable
// FAKE_GPUS says what is wrong with which. Built as a shared library; functions, structures and
// return values as in NVIDIA's nvml.h.
//
//   FAKE_GPUS="count=2 nvlink=switch mig=1 lost=1 noecc driver=missing"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

constexpr int kSuccess = 0, kInvalidArgument = 2, kNotSupported = 3, kNotFound = 6,
              kDriverNotLoaded = 9, kGpuIsLost = 15;

std::string option(const char* name, const char* otherwise) {
  const char* all = std::getenv("FAKE_GPUS");
  const std::string text = std::string(" ") + (all == nullptr ? "" : all) + " ";
  const std::string key = std::string(" ") + name + "=";
  const std::size_t at = text.find(key);
  if (at == std::string::npos) return otherwise;
  const std::size_t begin = at + key.size();
  return text.substr(begin, text.find(' ', begin) - begin);
}

long number(const char* name, long otherwise) {
  const std::string text = option(name, "");
  return text.empty() ? otherwise : std::strtol(text.c_str(), nullptr, 10);
}

struct Card {
  int index;
  bool instance;
};
Card g_cards[16];
Card g_instances[7];

Card* card(void* device) {
  return static_cast<Card*>(device);
}
bool lost(void* device) {
  return !card(device)->instance && number("lost", -1) == card(device)->index;
}

struct Memory {
  unsigned long long total, free, used;
};
struct Pci {
  char legacy[16];
  unsigned int domain, bus, device, id, subsystem;
  char bus_id[32];
};
struct Field {
  unsigned int field, scope;
  long long timestamp, latency;
  int type, result;
  union {
    double real;
    unsigned int whole;
    unsigned long long big;
  } value;
};

void address(Pci* pci, unsigned int bus) {
  std::memset(pci, 0, sizeof *pci);
  pci->bus = bus;
  std::snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", bus);
}

}  // namespace

extern "C" {

int nvmlInit_v2() {
  return option("driver", "") == "missing" ? kDriverNotLoaded : kSuccess;
}
int nvmlShutdown() {
  return kSuccess;
}
const char* nvmlErrorString(int result) {
  if (result == kDriverNotLoaded) return "Driver Not Loaded";
  if (result == kGpuIsLost) return "GPU is lost";
  return "Unknown Error";
}
int nvmlSystemGetDriverVersion(char* version, unsigned int length) {
  std::snprintf(version, length, "550.54.15");
  return kSuccess;
}
int nvmlDeviceGetCount_v2(unsigned int* count) {
  *count = static_cast<unsigned int>(number("count", 1));
  return kSuccess;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void** device) {
  if (number("closed", -1) == static_cast<long>(index)) return kGpuIsLost;
  g_cards[index] = {static_cast<int>(index), false};
  *device = &g_cards[index];
  return kSuccess;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char*, void** device) {
  return nvmlDeviceGetHandleByIndex_v2(0, device);
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void*, unsigned long long* reasons) {
  *reasons = static_cast<unsigned long long>(number("throttle", 0));
  return kSuccess;
}
int nvmlDeviceGetName(void* device, char* name, unsigned int length) {
  const std::string model = option("name", "NVIDIA_H100_80GB_HBM3");
  std::string words = card(device)->instance ? "NVIDIA H100 80GB HBM3 MIG 1g.10gb" : model;
  for (char& c : words) c = c == '_' ? ' ' : c;
  std::snprintf(name, length, "%s", words.c_str());
  return kSuccess;
}
int nvmlDeviceGetPciInfo_v3(void* device, Pci* pci) {
  address(pci, 0x1b + static_cast<unsigned int>(card(device)->index) * 0x10);
  return kSuccess;
}
int nvmlDeviceGetMemoryInfo(void* device, Memory* memory) {
  if (lost(device)) return kGpuIsLost;
  if (option("memory", "") == "nonsense") {
    *memory = {0, 0, 0};
    return kSuccess;
  }
  const unsigned long long mib = card(device)->instance ? 9856 : 81559;
  *memory = {mib << 20, (mib - 600) << 20, 600ULL << 20};
  return kSuccess;
}
int nvmlDeviceGetCudaComputeCapability(void*, int* major, int* minor) {
  *major = 9;
  *minor = 0;
  return kSuccess;
}
int nvmlDeviceGetEnforcedPowerLimit(void* device, unsigned int* milliwatts) {
  if (lost(device)) return kGpuIsLost;
  *milliwatts = 700000;
  return kSuccess;
}
int nvmlDeviceGetEccMode(void* device, unsigned int* now, unsigned int* later) {
  if (lost(device)) return kGpuIsLost;
  if (option("ecc", "") == "unsupported") return kNotSupported;
  *now = *later = 1;
  return kSuccess;
}
#ifndef FAKE_OLD_NVML  // a library from before MIG
int nvmlDeviceGetMigMode(void* device, unsigned int* now, unsigned int* later) {
  if (lost(device)) return kGpuIsLost;
  if (option("mig", "") == "unsupported") return kNotSupported;
  *now = *later = number("mig", 0) > 0 ? 1 : 0;
  return kSuccess;
}
int nvmlDeviceGetMaxMigDeviceCount(void*, unsigned int* count) {
  *count = 7;
  return kSuccess;
}
int nvmlDeviceGetMigDeviceHandleByIndex(void*, unsigned int index, void** device) {
  if (static_cast<long>(index) >= number("mig", 0)) return kNotFound;
  g_instances[index] = {static_cast<int>(index), true};
  *device = &g_instances[index];
  return kSuccess;
}
#endif
int nvmlDeviceGetCurrPcieLinkGeneration(void*, unsigned int* generation) {
  *generation = static_cast<unsigned int>(number("pcie", 5));
  return kSuccess;
}
int nvmlDeviceGetCurrPcieLinkWidth(void*, unsigned int* lanes) {
  *lanes = 16;
  return kSuccess;
}
int nvmlDeviceGetMaxPcieLinkGeneration(void*, unsigned int* generation) {
  *generation = 5;
  return kSuccess;
}
int nvmlDeviceGetMaxPcieLinkWidth(void*, unsigned int* lanes) {
  *lanes = 16;
  return kSuccess;
}
int nvmlDeviceGetNvLinkState(void* device, unsigned int link, unsigned int* active) {
  if (lost(device)) return kGpuIsLost;
  if (option("nvlink", "switch") == "none") return kNotSupported;
  if (link >= 18) return kInvalidArgument;
  *active = static_cast<long>(link) < number("links", 18) ? 1 : 0;
  return kSuccess;
}
int nvmlDeviceGetNvLinkRemoteDeviceType(void*, unsigned int, int* type) {
  const std::string to = option("nvlink", "switch");
  *type = to == "gpu" ? 0 : to == "switch" ? 2 : 255;
  return kSuccess;
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void*, unsigned int link, Pci* pci) {
  address(pci, 0x1b + (link % 2) * 0x10);
  return kSuccess;
}
int nvmlDeviceGetFieldValues(void*, int count, Field* values) {
  for (int i = 0; i < count; ++i) {
    const bool each = values[i].field == 164 && option("speed", "each") == "each";
    const bool common = values[i].field == 90 && option("speed", "each") == "common";
    values[i].result = each || common ? kSuccess : kNotSupported;
    values[i].type = 1;
    values[i].value.whole = 26562;
  }
  return kSuccess;
}

}  // extern "C"
