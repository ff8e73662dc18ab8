// A library with cuBLASLt's functions that multiplies nothing: it checks what it is given and lets
// the clock of the fake CUDA driver (fake_cuda.cpp) run as long as the product would take.
//
//   FAKE_CUBLASLT="tf32=400 fp16=800 bf16=800 fp8=1500 create=1 fails=13"   rates in 10^12 FLOP/s
//   fp8=none: not supported; small=none: products of less than 1024 are not supported
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

extern "C" void fake_cuda_pass(double seconds);

namespace {

constexpr int kSuccess = 0, kInvalidValue = 7, kNotSupported = 15;

std::string option(const char* name, const char* otherwise) {
  const char* all = std::getenv("FAKE_CUBLASLT");
  const std::string text = std::string(" ") + (all == nullptr ? "" : all) + " ";
  const std::string key = std::string(" ") + name + "=";
  const std::size_t at = text.find(key);
  if (at == std::string::npos) return otherwise;
  const std::size_t begin = at + key.size();
  return text.substr(begin, text.find(' ', begin) - begin);
}

long g_held = 0;

struct Product {
  int compute, scale;
  std::int32_t transposed = 0;
};
struct Layout {
  int type;
  std::uint64_t rows, columns;
  std::int64_t leading;
};
struct Preference {
  std::uint64_t workspace = 0;
};
struct Heuristic {
  std::uint64_t algorithm[8];
  std::size_t workspace;
  int state;
  float waves;
  int reserved[4];
};
constexpr std::uint64_t kMark = 0x5eed;  // of an algorithm that was chosen here

// The precision by the numbers of NVIDIA's headers; empty: no such product exists.
std::string precision_of(const Product& product, const Layout& a, const Layout& d) {
  if (product.scale != 0) return "";
  if (a.type == 0 && d.type == 0 && product.compute == 77) return "tf32";
  if (a.type == 2 && d.type == 2 && product.compute == 68) return "fp16";
  if (a.type == 14 && d.type == 14 && product.compute == 68) return "bf16";
  if (a.type == 28 && d.type == 14 && product.compute == 68) return "fp8";
  return "";
}

template <class T, class... Arguments>
int make(void** handle, Arguments... arguments) {
  *handle = new T{arguments...};
  ++g_held;
  return kSuccess;
}
template <class T>
int end(void* handle) {
  delete static_cast<T*>(handle);
  --g_held;
  return kSuccess;
}

}  // namespace

extern "C" {

std::size_t cublasLtGetVersion() {
  return 120301;
}
int cublasLtCreate(void** handle) {
  if (const std::string status = option("create", ""); !status.empty()) return std::stoi(status);
  return make<int>(handle);
}
int cublasLtDestroy(void* handle) {
  return end<int>(handle);
}
int cublasLtMatmulDescCreate(void** product, int compute, int scale) {
  return make<Product>(product, compute, scale);
}
int cublasLtMatmulDescDestroy(void* product) {
  return end<Product>(product);
}
int cublasLtMatmulDescSetAttribute(void* product, int attribute, const void* value,
                                   std::size_t bytes) {
  if (attribute == 3 && bytes == sizeof(std::int32_t)) {
    std::memcpy(&static_cast<Product*>(product)->transposed, value, bytes);
    return kSuccess;
  }
  return attribute == 25 && bytes == 1 ? kSuccess : kInvalidValue;
}
int cublasLtMatrixLayoutCreate(void** layout, int type, std::uint64_t rows, std::uint64_t columns,
                               std::int64_t leading) {
  return make<Layout>(layout, type, rows, columns, leading);
}
int cublasLtMatrixLayoutDestroy(void* layout) {
  return end<Layout>(layout);
}
int cublasLtMatmulPreferenceCreate(void** preference) {
  return make<Preference>(preference);
}
int cublasLtMatmulPreferenceDestroy(void* preference) {
  return end<Preference>(preference);
}
int cublasLtMatmulPreferenceSetAttribute(void* preference, int attribute, const void* value,
                                         std::size_t bytes) {
  if (attribute != 1 || bytes != sizeof(std::uint64_t)) return kInvalidValue;
  std::memcpy(&static_cast<Preference*>(preference)->workspace, value, bytes);
  return kSuccess;
}
int cublasLtMatmulAlgoGetHeuristic(void*, void* product, void* a, void* b, void* c, void* d,
                                   void* preference, int wanted, Heuristic* results, int* found) {
  *found = 0;
  const auto& left = *static_cast<Layout*>(a);
  const std::string precision =
      precision_of(*static_cast<Product*>(product), left, *static_cast<Layout*>(d));
  if (precision.empty() || a != b || c != d || wanted < 1) return kInvalidValue;
  if (static_cast<Product*>(product)->transposed != 1) return kNotSupported;
  if (option(precision.c_str(), "100") == "none") return kNotSupported;
  if (option("small", "") == "none" && left.rows < 1024) return kSuccess;  // and none found
  results[0] = {};
  results[0].algorithm[0] = kMark;
  results[0].workspace = static_cast<Preference*>(preference)->workspace;
  *found = 1;
  return kSuccess;
}
int cublasLtMatmul(void*, void* product, const void*, const void* a, void* left, const void* b,
                   void*, const void*, const void*, void*, void* d, void* result,
                   const std::uint64_t* algorithm, void*, std::size_t, void*) {
  if (const std::string status = option("fails", ""); !status.empty()) return std::stoi(status);
  const auto& sides = *static_cast<Layout*>(left);
  if (algorithm[0] != kMark || a == nullptr || b == nullptr || d == nullptr) return kInvalidValue;
  const std::string precision =
      precision_of(*static_cast<Product*>(product), sides, *static_cast<Layout*>(result));
  const double side = static_cast<double>(sides.rows);
  const double rate = std::strtod(option(precision.c_str(), "100").c_str(), nullptr) * 1e12;
  // Small products reach half.
  fake_cuda_pass(2 * side * side * side / (side < 1024 ? rate / 2 : rate));
  return kSuccess;
}

long fake_cublaslt_held() {
  return g_held;
}

}  // extern "C"
