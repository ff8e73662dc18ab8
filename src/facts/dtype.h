// Element types of tensors.
#pragma once

#include <cstdint>

namespace steelyard::facts {

// fp4: of arithmetic alone; what holds two of them to a byte is counted in bytes.
enum class DType { fp32, bf16, fp16, fp8, fp4, int64, int32, int8, boolean };

[[nodiscard]] constexpr std::int64_t bytes_of(DType type) {
  switch (type) {
    case DType::fp32:
    case DType::int32: return 4;
    case DType::bf16:
    case DType::fp16: return 2;
    case DType::int64: return 8;
    case DType::fp8:
    case DType::fp4:
    case DType::int8:
    case DType::boolean: return 1;
  }
  return 4;
}

[[nodiscard]] constexpr const char* name_of(DType type) {
  switch (type) {
    case DType::fp32: return "fp32";
    case DType::bf16: return "bf16";
    case DType::fp16: return "fp16";
    case DType::fp8: return "fp8";
    case DType::fp4: return "fp4";
    case DType::int64: return "int64";
    case DType::int32: return "int32";
    case DType::int8: return "int8";
    case DType::boolean: return "bool";
  }
  return "";
}

}  // namespace steelyard::facts
