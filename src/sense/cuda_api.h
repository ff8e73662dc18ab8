// The part of the CUDA driver's binary interface that is used (cuda.h 12.9; the names with _v2 are
// those that the header's macros stand for).
#pragma once

#include <cstddef>
#include <string>

#include "sense/shared_library.h"

namespace steelyard::sense {

using CudaDevice = int;                  // CUdevice
using CudaPointer = unsigned long long;  // CUdeviceptr, 64 bits
using CudaHandle = void*;                // CUcontext, CUstream, CUevent: only the driver reads them
constexpr int kCudaSuccess = 0;          // CUDA_SUCCESS
constexpr int kCudaNotReady = 600;       // CUDA_ERROR_NOT_READY
constexpr unsigned int kCudaNonBlocking = 1;  // CU_STREAM_NON_BLOCKING
constexpr unsigned int kCudaPortable = 1;     // CU_MEMHOSTALLOC_, CU_MEMHOSTREGISTER_PORTABLE

struct CudaApi {
  explicit CudaApi(const SharedLibrary& library);
  // Whether the library has all that copying needs: the oldest are of CUDA 4, the youngest of
  // CUDA 11.
  [[nodiscard]] bool complete() const;
  // And what the last four are for: copies out of memory that the program mapped itself.
  [[nodiscard]] bool can_pin() const;
  // "CUDA_ERROR_OUT_OF_MEMORY", or the number where the library has no name for it.
  [[nodiscard]] std::string name_of(int result) const;

  int (*init)(unsigned int) = nullptr;
  int (*error_name)(int, const char**) = nullptr;
  int (*count)(int*) = nullptr;
  int (*device)(CudaDevice*, int) = nullptr;
  int (*pci)(char*, int, CudaDevice) = nullptr;
  int (*total_memory)(std::size_t*, CudaDevice) = nullptr;
  int (*retain)(CudaHandle*, CudaDevice) = nullptr;
  int (*release)(CudaDevice) = nullptr;
  int (*set_current)(CudaHandle) = nullptr;
  int (*allocate)(CudaPointer*, std::size_t) = nullptr;
  int (*free)(CudaPointer) = nullptr;
  int (*allocate_host)(void**, std::size_t, unsigned int) = nullptr;
  int (*free_host)(void*) = nullptr;
  int (*to_device)(CudaPointer, const void*, std::size_t, CudaHandle) = nullptr;
  int (*from_device)(void*, CudaPointer, std::size_t, CudaHandle) = nullptr;
  int (*inside)(CudaPointer, CudaPointer, std::size_t, CudaHandle) = nullptr;
  int (*make_stream)(CudaHandle*, unsigned int) = nullptr;
  int (*end_stream)(CudaHandle) = nullptr;
  int (*make_event)(CudaHandle*, unsigned int) = nullptr;
  int (*end_event)(CudaHandle) = nullptr;
  int (*record)(CudaHandle, CudaHandle) = nullptr;
  int (*wait)(CudaHandle) = nullptr;
  int (*elapsed)(float*, CudaHandle, CudaHandle) = nullptr;  // milliseconds
  int (*name)(char*, int, CudaDevice) = nullptr;
  int (*pin)(void*, std::size_t, unsigned int) = nullptr;
  int (*unpin)(void*) = nullptr;
  int (*query)(CudaHandle) = nullptr;  // of an event: success, or not ready
};

}  // namespace steelyard::sense
