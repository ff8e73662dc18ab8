#include "sense/cuda_api.h"

namespace steelyard::sense {

CudaApi::CudaApi(const SharedLibrary& library) {
  library.find("cuInit", init);
  library.find("cuGetErrorName", error_name);
  library.find("cuDeviceGetCount", count);
  library.find("cuDeviceGet", device);
  library.find("cuDeviceGetPCIBusId", pci);
  library.find("cuDeviceTotalMem_v2", total_memory);
  library.find("cuDevicePrimaryCtxRetain", retain);
  library.find("cuDevicePrimaryCtxRelease_v2", release);
  library.find("cuCtxSetCurrent", set_current);
  library.find("cuMemAlloc_v2", allocate);
  library.find("cuMemFree_v2", free);
  library.find("cuMemHostAlloc", allocate_host);
  library.find("cuMemFreeHost", free_host);
  library.find("cuMemcpyHtoDAsync_v2", to_device);
  library.find("cuMemcpyDtoHAsync_v2", from_device);
  library.find("cuMemcpyDtoDAsync_v2", inside);
  library.find("cuStreamCreate", make_stream);
  library.find("cuStreamDestroy_v2", end_stream);
  library.find("cuEventCreate", make_event);
  library.find("cuEventDestroy_v2", end_event);
  library.find("cuEventRecord", record);
  library.find("cuEventSynchronize", wait);
  library.find("cuEventElapsedTime", elapsed);
  library.find("cuDeviceGetName", name);
  library.find("cuMemHostRegister_v2", pin);
  library.find("cuMemHostUnregister", unpin);
  library.find("cuEventQuery", query);
}

bool CudaApi::complete() const {
  return init != nullptr && count != nullptr && device != nullptr && pci != nullptr &&
         total_memory != nullptr && retain != nullptr && release != nullptr &&
         set_current != nullptr && allocate != nullptr && free != nullptr &&
         allocate_host != nullptr && free_host != nullptr && to_device != nullptr &&
         from_device != nullptr && inside != nullptr && make_stream != nullptr &&
         end_stream != nullptr && make_event != nullptr && end_event != nullptr &&
         record != nullptr && wait != nullptr && elapsed != nullptr;
}

bool CudaApi::can_pin() const {
  return complete() && name != nullptr && pin != nullptr && unpin != nullptr && query != nullptr;
}

std::string CudaApi::name_of(int result) const {
  const char* text = nullptr;
  if (error_name != nullptr) error_name(result, &text);
  return text == nullptr ? "CUDA error " + std::to_string(result) : text;
}

}  // namespace steelyard::sense
