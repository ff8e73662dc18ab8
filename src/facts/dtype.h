// Element types of tensors.
#pragma once

#include <cstdint>

namespace steelyard::facts {

enum class DType { fp32, bf16, fp16, fp8, int64, int32, int8, boolean };

[[nodiscard]] constexpr std::int64_t bytes_of(DType type) {
  switch (type) {
    case DType::fp32:
    case DType::int32: return 4;
    case DType::bf16:
    case DType::fp16: return 2;
    case DType::int64: return 8;
    case DType::fp8:
    case DType::int8:
    case DType::boolean: return 1;
  }
  return 4;
}

}  // namespace steelyard::facts
