#include "probe/gemm_rates.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <random>

#include "base/format.h"
#include "probe/repeat.h"
#include "probe/spread.h"
#include "sense/cublaslt_api.h"
#include "sense/cuda_api.h"
#include "sense/gpu_clocks.h"

namespace steelyard::probe {
namespace {

using facts::GpuDevice;
using facts::Known;
using facts::Provenance;
using sense::CublasLtApi;
using sense::CublasLtHandle;
using sense::CudaApi;
using sense::CudaDevice;
using sense::CudaHandle;
using sense::CudaPointer;

constexpr std::size_t kWorkspace = std::size_t{32} << 20;  // what NVIDIA recommends for Hopper

struct Precision {
  const char* name;
  int operands, results, compute;
  std::int64_t operand_bytes, result_bytes;
  // Random numbers near 1: the bits of 1, below which the mantissa's are random, and the sign.
  std::uint32_t one, mantissa, sign;
  Known<FlopsPerSecond> facts::GpuRates::*rate;
};
constexpr std::array<Precision, 4> kPrecisions{{
    {"tf32", sense::kCudaReal32, sense::kCudaReal32, sense::kCompute32FastTf32, 4, 4, 0x3f800000,
     0x007fffff, 0x80000000, &facts::GpuRates::tf32},
    {"fp16", sense::kCudaReal16, sense::kCudaReal16, sense::kCompute32, 2, 2, 0x3c00, 0x03ff,
     0x8000, &facts::GpuRates::fp16},
    {"bf16", sense::kCudaReal16Brain, sense::kCudaReal16Brain, sense::kCompute32, 2, 2, 0x3f80,
     0x007f, 0x8000, &facts::GpuRates::bf16},
    {"fp8", sense::kCudaReal8E4m3, sense::kCudaReal16Brain, sense::kCompute32, 1, 2, 0x38, 0x07,
     0x80, &facts::GpuRates::fp8},
}};

struct Failure {
  std::string what;
};
// Of a precision or size that the library does not offer on this GPU.
struct Unsupported {};

std::vector<unsigned char> random_values(const Precision& precision, std::size_t bytes) {
  std::mt19937 random(42);
  const auto width = static_cast<std::size_t>(precision.operand_bytes);
  std::vector<unsigned char> values(bytes / width * width);
  for (std::size_t i = 0; i < values.size(); i += width) {
    const auto bits = static_cast<std::uint32_t>(random());
    const std::uint32_t value =
        precision.one | (bits & precision.mantissa) | ((bits >> 1) & precision.sign);
    for (std::size_t b = 0; b < width; ++b) {
      values[i + b] = static_cast<unsigned char>(value >> (8 * b));
    }
  }
  return values;
}

// The context, stream, events and library handle of one GPU, given back at the end.
class Bench {
 public:
  Bench(const CudaApi& cuda, const CublasLtApi& blas, CudaDevice device)
      : cuda_(cuda), blas_(blas), device_(device) {
    try {
      check("context", cuda_.retain(&context_, device_));
      check("context", cuda_.set_current(context_));
      check("stream", cuda_.make_stream(&stream_, sense::kCudaNonBlocking));
      for (CudaHandle& event : events_) check("event", cuda_.make_event(&event, 0));
      check_blas("handle", blas_.create(&handle_));
    } catch (...) {
      give_back();
      throw;
    }
  }
  ~Bench() { give_back(); }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  void check(const char* what, int result) const {
    if (result == sense::kCudaSuccess) return;
    throw Failure{fmt::format("{}: {}", what, cuda_.name_of(result))};
  }
  static void check_blas(const char* what, int status) {
    if (status == sense::kCublasNotSupported) throw Unsupported{};
    if (status != sense::kCublasSuccess) {
      throw Failure{fmt::format("{}: cuBLASLt status {}", what, status)};
    }
  }

  [[nodiscard]] const CudaApi& cuda() const { return cuda_; }
  [[nodiscard]] const CublasLtApi& blas() const { return blas_; }
  [[nodiscard]] CublasLtHandle handle() const { return handle_; }
  [[nodiscard]] CudaHandle stream() const { return stream_; }

  void begin() { check("event", cuda_.record(events_[0], stream_)); }
  void end() { check("event", cuda_.record(events_[1], stream_)); }
  // Between both, in seconds, when the GPU is done.
  double passed() {
    check("multiplying", cuda_.wait(events_[1]));
    float milliseconds = 0;
    check("time", cuda_.elapsed(&milliseconds, events_[0], events_[1]));
    return static_cast<double>(milliseconds) / 1e3;
  }

 private:
  void give_back() {
    if (handle_ != nullptr) blas_.destroy(handle_);
    for (CudaHandle event : events_) {
      if (event != nullptr) cuda_.end_event(event);
    }
    if (stream_ != nullptr) cuda_.end_stream(stream_);
    if (context_ != nullptr) cuda_.release(device_);
  }

  const CudaApi& cuda_;
  const CublasLtApi& blas_;
  CudaDevice device_;
  CudaHandle context_ = nullptr, stream_ = nullptr;
  std::array<CudaHandle, 2> events_{};
  CublasLtHandle handle_ = nullptr;
};

// Memory of the GPU.
class Block {
 public:
  Block(Bench& bench, std::size_t bytes) : bench_(bench) {
    bench_.check("memory of the GPU", bench_.cuda().allocate(&pointer_, bytes));
  }
  ~Block() { bench_.cuda().free(pointer_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  [[nodiscard]] CudaPointer address() const { return pointer_; }
  [[nodiscard]] void* pointer() const { return reinterpret_cast<void*>(pointer_); }

  // Fills it with a pattern: the first copy comes from the host, the rest from it, doubling.
  void fill(const std::vector<unsigned char>& pattern, std::size_t bytes) {
    std::size_t done = std::min(pattern.size(), bytes);
    bench_.check("filling",
                 bench_.cuda().to_device(pointer_, pattern.data(), done, bench_.stream()));
    while (done < bytes) {
      const std::size_t more = std::min(done, bytes - done);
      bench_.check("filling",
                   bench_.cuda().inside(pointer_ + done, pointer_, more, bench_.stream()));
      done += more;
    }
  }

 private:
  Bench& bench_;
  CudaPointer pointer_ = 0;
};

// A descriptor of cuBLASLt.
class Descriptor {
 public:
  Descriptor(CublasLtHandle handle, int (*end)(CublasLtHandle)) : handle_(handle), end_(end) {}
  ~Descriptor() { end_(handle_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] CublasLtHandle get() const { return handle_; }

 private:
  CublasLtHandle handle_;
  int (*end_)(CublasLtHandle);
};

CublasLtHandle product_of(Bench& bench, const Precision& precision) {
  CublasLtHandle product = nullptr;
  Bench::check_blas("product",
                    bench.blas().make_product(&product, precision.compute, sense::kCudaReal32));
  return product;
}

CublasLtHandle layout_of(Bench& bench, int type, std::int64_t size) {
  CublasLtHandle layout = nullptr;
  const auto side = static_cast<std::uint64_t>(size);
  Bench::check_blas("layout", bench.blas().make_layout(&layout, type, side, side, size));
  return layout;
}

CublasLtHandle preference_of(Bench& bench) {
  CublasLtHandle preference = nullptr;
  Bench::check_blas("preference", bench.blas().make_preference(&preference));
  return preference;
}

// Products of one precision and size on one GPU.
class Product {
 public:
  Product(Bench& bench, const Precision& precision, std::int64_t size)
      : bench_(bench),
        size_(size),
        product_(product_of(bench, precision), bench.blas().end_product),
        operand_(layout_of(bench, precision.operands, size), bench.blas().end_layout),
        result_(layout_of(bench, precision.results, size), bench.blas().end_layout),
        preference_(preference_of(bench), bench.blas().end_preference),
        a_(bench, operand_bytes(precision)),
        b_(bench, operand_bytes(precision)),
        d_(bench, static_cast<std::size_t>(size * size * precision.result_bytes)),
        workspace_(bench, kWorkspace) {
    choose(precision);
    const auto pattern = random_values(precision, std::size_t{1} << 20);
    a_.fill(pattern, operand_bytes(precision));
    b_.fill(pattern, operand_bytes(precision));
  }

  void multiply() {
    const float alpha = 1, beta = 0;
    Bench::check_blas(
        "multiplying",
        bench_.blas().multiply(bench_.handle(), product_.get(), &alpha, a_.pointer(),
                               operand_.get(), b_.pointer(), operand_.get(), &beta, d_.pointer(),
                               result_.get(), d_.pointer(), result_.get(), &chosen_.algorithm,
                               workspace_.pointer(), kWorkspace, bench_.stream()));
  }
  // Each multiplication adds to each of n x n results n products.
  [[nodiscard]] double flops() const { return 2 * std::pow(static_cast<double>(size_), 3); }

 private:
  [[nodiscard]] std::size_t operand_bytes(const Precision& precision) const {
    return static_cast<std::size_t>(size_ * size_ * precision.operand_bytes);
  }

  void choose(const Precision& precision) {
    const CublasLtApi& blas = bench_.blas();
    const std::int32_t transposed = 1;  // CUBLAS_OP_T; fp8 knows no other
    Bench::check_blas("product", blas.set_product(product_.get(), sense::kDescTransposeA,
                                                  &transposed, sizeof transposed));
    if (precision.operand_bytes == 1) {
      const std::int8_t fast = 1;
      Bench::check_blas("product", blas.set_product(product_.get(), sense::kDescFastAccumulate,
                                                    &fast, sizeof fast));
    }
    const std::uint64_t most = kWorkspace;
    Bench::check_blas(
        "preference",
        blas.set_preference(preference_.get(), sense::kPreferenceWorkspace, &most, sizeof most));
    int found = 0;
    Bench::check_blas(
        "choosing an algorithm",
        blas.choose(bench_.handle(), product_.get(), operand_.get(), operand_.get(), result_.get(),
                    result_.get(), preference_.get(), 1, &chosen_, &found));
    if (found == 0) throw Unsupported{};
  }

  Bench& bench_;
  std::int64_t size_;
  Descriptor product_, operand_, result_, preference_;
  Block a_, b_, d_, workspace_;
  sense::CublasLtHeuristic chosen_{};
};

class Gemms {
 public:
  Gemms(Bench& bench, GpuDevice& gpu, std::size_t memory, const GemmOptions& options,
        const sense::GpuClocks* clocks)
      : bench_(bench), gpu_(gpu), memory_(memory), options_(options), clocks_(clocks) {}

  void measure(const Precision& precision) {
    for (const std::int64_t size : options_.sizes) {
      const auto needed = static_cast<std::size_t>(
          size * size * (2 * precision.operand_bytes + precision.result_bytes));
      if (needed + kWorkspace > memory_ / 2) continue;
      try {
        one_size(precision, size);
      } catch (const Unsupported&) {
        return;
      } catch (const Failure& failure) {
        gpu_.problems.push_back(
            fmt::format("{} GEMM of {}: {}", precision.name, size, failure.what));
        return;
      }
    }
  }

 private:
  double run(Product& product, int times) {
    bench_.begin();
    for (int i = 0; i < times; ++i) product.multiply();
    bench_.end();
    // Asked while it works: idle, a GPU is held back by nothing.
    if (clocks_ != nullptr && held_back_.empty()) held_back_ = clocks_->held_back_by(gpu_.pci);
    return bench_.passed() / times;
  }

  // When not to believe it. The power limit holds every large card back: that is no fault.
  void doubt(const Precision& precision, const Spread& spread) {
    if (!held_back_.empty() && held_back_ != "the power limit") {
      say(fmt::format("{} GEMM: the clock was held back by {}", precision.name, held_back_));
    }
    if (spread.relative() > kNoisy) {
      say(fmt::format("{} GEMM: its runs differ by {}", precision.name,
                      percent(spread.relative())));
    }
  }
  void say(std::string sentence) {
    const bool said =
        std::find(gpu_.problems.begin(), gpu_.problems.end(), sentence) != gpu_.problems.end();
    if (!said) gpu_.problems.push_back(std::move(sentence));
  }

  void one_size(const Precision& precision, std::int64_t size) {
    constexpr int kMostTimes = 1000;
    held_back_.clear();
    Product product(bench_, precision, size);
    run(product, 1);
    const double once = run(product, 1);
    const int times =
        once > 0 ? static_cast<int>(std::clamp(options_.run.value() / once, 1.0, 1.0 * kMostTimes))
                 : 1;
    held_back_.clear();
    std::vector<double> seconds;
    for (int i = 0; i < options_.runs; ++i) seconds.push_back(run(product, times));
    const Spread spread = spread_of(seconds);
    if (!(spread.median > 0)) return;
    const FlopsPerSecond rate(product.flops() / spread.median);
    Known<FlopsPerSecond>& best = gpu_.rates.*precision.rate;
    if (best && *best >= rate) return;
    doubt(precision, spread);
    best = {rate, Provenance::measured,
            fmt::format("{} cubed, within {}{}; cuBLASLt, {} runs of {}", size,
                        percent(spread.relative()),
                        held_back_.empty() ? std::string() : ", held back by " + held_back_,
                        spread.runs, times)};
  }

  Bench& bench_;
  GpuDevice& gpu_;
  std::size_t memory_;
  const GemmOptions& options_;
  const sense::GpuClocks* clocks_;
  std::string held_back_;
};

std::optional<sense::SharedLibrary> cublaslt(const GemmOptions& options,
                                             facts::Topology& topology) {
  const std::string named =
      options.cublaslt.empty() ? sense::library_name("STEELYARD_CUBLASLT", "") : options.cublaslt;
  if (!named.empty()) {
    auto library = sense::SharedLibrary::open(named);
    if (!library) {
      topology.warnings.push_back(named + " cannot be loaded: GEMM rates were not measured");
    }
    return library;
  }
  for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so.11"}) {
    if (auto library = sense::SharedLibrary::open(name)) return library;
  }
  return std::nullopt;
}

GpuDevice* gpu_at(facts::Topology& topology, std::string address) {
  for (char& c : address) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  for (GpuDevice& gpu : topology.gpus) {
    if (gpu.pci == address) return &gpu;
  }
  return nullptr;
}

void measure_one(const CudaApi& cuda, const CublasLtApi& blas, int ordinal,
                 facts::Topology& topology, const GemmOptions& options,
                 const sense::GpuClocks* clocks) {
  CudaDevice device = 0;
  std::array<char, 32> address{};
  std::size_t memory = 0;
  if (cuda.device(&device, ordinal) != sense::kCudaSuccess ||
      cuda.pci(address.data(), static_cast<int>(address.size()) - 1, device) !=
          sense::kCudaSuccess ||
      cuda.total_memory(&memory, device) != sense::kCudaSuccess) {
    return;  // measure_copies says so
  }
  GpuDevice* const gpu = gpu_at(topology, address.data());
  if (gpu == nullptr) return;
  const auto used = static_cast<std::size_t>(gpu->memory_used ? gpu->memory_used->value() : 0);
  try {
    Bench bench(cuda, blas, device);
    Gemms gemms(bench, *gpu, memory - std::min(memory, used), options, clocks);
    for (const Precision& precision : kPrecisions) gemms.measure(precision);
  } catch (const Failure& failure) {
    gpu->problems.push_back("GEMM: " + failure.what);
  } catch (const Unsupported&) {
    gpu->problems.emplace_back("GEMM: cuBLASLt does not support this GPU");
  }
}

}  // namespace

void measure_gemms(facts::Topology& topology, const GemmOptions& options) {
  const bool nvidia = std::any_of(topology.gpus.begin(), topology.gpus.end(),
                                  [](const GpuDevice& gpu) { return gpu.vendor == "nvidia"; });
  if (!nvidia) return;
  const auto driver = sense::SharedLibrary::open(
      options.cuda.empty() ? sense::library_name("STEELYARD_CUDA", "libcuda.so.1") : options.cuda);
  if (!driver) return;  // measure_copies says so
  const CudaApi cuda(*driver);
  int count = 0;
  if (!cuda.complete() || cuda.init(0) != sense::kCudaSuccess ||
      cuda.count(&count) != sense::kCudaSuccess) {
    return;
  }
  const auto library = cublaslt(options, topology);
  if (!library) return;
  const CublasLtApi blas(*library);
  if (!blas.complete()) {
    topology.warnings.emplace_back("cuBLASLt lacks functions: GEMM rates were not measured");
    return;
  }
  const auto clocks = sense::GpuClocks::open(options.nvml);
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    measure_one(cuda, blas, ordinal, topology, options, clocks ? &*clocks : nullptr);
  }
}

}  // namespace steelyard::probe
