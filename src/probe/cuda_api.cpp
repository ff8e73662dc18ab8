#include "probe/cuda_api.h"

namespace steelyard::probe {

CudaApi::CudaApi(const sense::SharedLibrary& library) {
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

}  // namespace steelyard::probe
