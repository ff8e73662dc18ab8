// The part of cuBLASLt's binary interface that is used (cublasLt.h 12; numbers of library_types.h,
// cublas_api.h): the same since CUDA 11.8, whose numbers of attributes NVIDIA keeps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "sense/shared_library.h"

namespace steelyard::sense {

using CublasLtHandle = void*;  // cublasLtHandle_t and all descriptors: only the library reads them
constexpr int kCublasSuccess = 0, kCublasNotSupported = 15;  // cublasStatus_t

// cudaDataType_t
constexpr int kCudaReal32 = 0, kCudaReal16 = 2, kCudaReal16Brain = 14, kCudaReal8E4m3 = 28;
// cublasComputeType_t
constexpr int kCompute32 = 68, kCompute32FastTf32 = 77;
// cublasLtMatmulDescAttributes_t
constexpr int kDescTransposeA = 3;       // int32_t, cublasOperation_t: 1 is transposed
constexpr int kDescFastAccumulate = 25;  // int8_t
// cublasLtMatmulPreferenceAttributes_t
constexpr int kPreferenceWorkspace = 1;  // uint64_t, bytes at most

struct CublasLtAlgorithm {  // cublasLtMatmulAlgo_t
  std::uint64_t data[8];
};
struct CublasLtHeuristic {  // cublasLtMatmulHeuristicResult_t
  CublasLtAlgorithm algorithm;
  std::size_t workspace;
  int state;
  float waves;
  int reserved[4];
};
static_assert(sizeof(CublasLtHeuristic) == 96);

struct CublasLtApi {
  explicit CublasLtApi(const SharedLibrary& library);
  [[nodiscard]] bool complete() const;

  std::size_t (*version)() = nullptr;  // 120301: 12.3.1
  int (*create)(CublasLtHandle*) = nullptr;
  int (*destroy)(CublasLtHandle) = nullptr;
  int (*make_product)(CublasLtHandle*, int compute, int scale) = nullptr;
  int (*end_product)(CublasLtHandle) = nullptr;
  int (*set_product)(CublasLtHandle, int attribute, const void*, std::size_t) = nullptr;
  int (*make_layout)(CublasLtHandle*, int type, std::uint64_t rows, std::uint64_t columns,
                     std::int64_t leading) = nullptr;
  int (*end_layout)(CublasLtHandle) = nullptr;
  int (*make_preference)(CublasLtHandle*) = nullptr;
  int (*end_preference)(CublasLtHandle) = nullptr;
  int (*set_preference)(CublasLtHandle, int attribute, const void*, std::size_t) = nullptr;
  int (*choose)(CublasLtHandle, CublasLtHandle product, CublasLtHandle a, CublasLtHandle b,
                CublasLtHandle c, CublasLtHandle d, CublasLtHandle preference, int wanted,
                CublasLtHeuristic*, int* found) = nullptr;
  int (*multiply)(CublasLtHandle, CublasLtHandle product, const void* alpha, const void* a,
                  CublasLtHandle, const void* b, CublasLtHandle, const void* beta, const void* c,
                  CublasLtHandle, void* d, CublasLtHandle, const CublasLtAlgorithm*,
                  void* workspace, std::size_t, void* stream) = nullptr;
};

}  // namespace steelyard::sense
