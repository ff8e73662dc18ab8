#include "sense/nvml_api.h"

namespace steelyard::sense {

NvmlApi::NvmlApi(const SharedLibrary& library) {
  library.find("nvmlInit_v2", init);
  library.find("nvmlShutdown", shutdown);
  library.find("nvmlErrorString", error_string);
  library.find("nvmlSystemGetDriverVersion", driver_version);
  library.find("nvmlDeviceGetCount_v2", count);
  library.find("nvmlDeviceGetHandleByIndex_v2", handle);
  library.find("nvmlDeviceGetName", name);
  library.find("nvmlDeviceGetPciInfo_v3", pci);
  library.find("nvmlDeviceGetMemoryInfo", memory);
  library.find("nvmlDeviceGetCudaComputeCapability", capability);
  library.find("nvmlDeviceGetEnforcedPowerLimit", power_limit);
  library.find("nvmlDeviceGetEccMode", ecc);
  library.find("nvmlDeviceGetMigMode", mig);
  library.find("nvmlDeviceGetMaxMigDeviceCount", mig_most);
  library.find("nvmlDeviceGetMigDeviceHandleByIndex", mig_handle);
  library.find("nvmlDeviceGetCurrPcieLinkGeneration", pcie_generation);
  library.find("nvmlDeviceGetCurrPcieLinkWidth", pcie_lanes);
  library.find("nvmlDeviceGetMaxPcieLinkGeneration", pcie_most_generation);
  library.find("nvmlDeviceGetMaxPcieLinkWidth", pcie_most_lanes);
  library.find("nvmlDeviceGetNvLinkState", link_state);
  library.find("nvmlDeviceGetNvLinkRemotePciInfo_v2", link_peer_pci);
  library.find("nvmlDeviceGetNvLinkRemoteDeviceType", link_peer_type);
  library.find("nvmlDeviceGetFieldValues", field_values);
}

}  // namespace steelyard::sense
