// What `steelyard probe` measured on this host: how fast its memory, decoders and storage are.
// Rates are in the units of their types; every figure says how it was measured and, where that is
// the case, why not to believe it. docs/probe-measurements.md says what each figure does not say.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/quantity.h"

namespace steelyard::facts {

using Pixels = WholeQuantity<struct PixelsTag>;
using PixelsPerSecond = RealQuantity<struct PixelsPerSecondTag>;
using OperationsPerSecond = RealQuantity<struct OperationsPerSecondTag>;  // requests or files

// One figure from repeated runs.
template <class Quantity>
struct Repeated {
  Quantity median{};
  Quantity low{};
  Quantity high{};
  int runs = 0;                          // 0: not measured, and the warning says why
  std::string how{};                     // one sentence
  std::optional<std::string> warning{};  // why not to believe it
};

// The moment of the measurement.
struct MeasuringConditions {
  std::int64_t threads = 0;  // hardware threads that this process may use
  double load_average = 0;   // of the last minute, before anything was measured
  std::string governor{};    // of the processor's frequency; empty where the kernel shows none
  std::string transparent_huge_pages{};  // "always", "madvise", "never"; empty where unknown
  std::vector<std::string> warnings{};
};

// Threads on the cores of one node, memory on the same or another. Bytes are counted as the program
// sees them: a copy of n bytes counts 2 n, a triad of n-byte arrays 3 n.
struct MemoryBandwidth {
  std::int64_t core_node = 0;
  std::int64_t memory_node = 0;
  std::int64_t threads = 1;
  Repeated<BytesPerSecond> read{};
  Repeated<BytesPerSecond> write{};  // streaming stores, past the caches
  Repeated<BytesPerSecond> copy{};   // the same stores
  Repeated<BytesPerSecond> triad{};  // a[i] = b[i] + s * c[i]
};

struct MemoryMeasurements {
  std::string instructions{};  // "avx512", "avx2", "plain"
  Bytes buffer{};              // that all threads together walk
  Bytes last_level_cache{};    // all of the last level together; 0 where unknown
  std::vector<MemoryBandwidth> rates{};
};

enum class ImageWork {
  jpeg,
  jpeg_half,
  jpeg_quarter,
  jpeg_eighth,
  png,
  resize,
  jpeg_sample,  // as a rehearsal makes it: a random part, mirrored or not, of 224 x 224
  png_sample
};

// One kind of work on images of about one size.
struct ImageRate {
  ImageWork work = ImageWork::jpeg;
  std::int64_t width = 0;  // of the stored image, the mean where they differ
  std::int64_t height = 0;
  Bytes compressed{};  // one stored image, the mean; 0 for work on pixels
  std::int64_t threads = 1;
  Repeated<SamplesPerSecond> images{};
  BytesPerSecond compressed_rate{};  // compressed bytes taken in
  PixelsPerSecond pixel_rate{};      // pixels of the stored image, not of the scaled result
};

// Time of one image on one core = pixels * per_pixel + compressed bytes * per_byte.
struct DecodeModel {
  ImageWork work = ImageWork::jpeg;
  Seconds per_pixel{};
  Seconds per_byte{};
  Ratio worst_error{};  // of the points that it was fitted to, |fitted - measured| / measured
  int points = 0;
};

struct ImageMeasurements {
  std::string source{};   // "synthetic" or the folder
  std::string decoder{};  // library and version
  std::vector<ImageRate> rates{};
  std::vector<DecodeModel> models{};
};

// What host memory does in a data path, on one core and on all.
struct HostRate {
  std::int64_t threads = 1;
  Repeated<BytesPerSecond> byte_scan{};  // looking for one byte: what a tokeniser-free reader does
  Repeated<BytesPerSecond> memory_copy{};       // memcpy; bytes copied, not bytes moved
  Repeated<BytesPerSecond> first_touch{};       // 4 KiB pages, page faults included
  Repeated<BytesPerSecond> first_touch_huge{};  // with huge pages asked for
  Repeated<BytesPerSecond> lock_pages{};        // mmap and mlock: near to what pinning costs
};

enum class StoragePattern {
  sequential_read,
  random_read,
  sequential_write,
  small_files,
  cached_read,
  cached_records  // read from the page cache by one thread, copied into batches by `depth` others
};

struct StorageRate {
  StoragePattern pattern = StoragePattern::sequential_read;
  Bytes request{};  // the file's size for small_files
  std::int64_t depth = 1;
  Repeated<BytesPerSecond> rate{};
  OperationsPerSecond operations{};  // requests, or files
  Seconds latency_median{};          // of one request; 0 where it was not taken
  Seconds latency_p99{};
};

struct StorageMeasurements {
  std::string path{};
  std::string file_system{};  // "ext4", "tmpfs", "overlay"
  std::string engine{};       // "io_uring" or "threads"
  bool direct = false;        // O_DIRECT
  Bytes test_file{};
  Bytes free_before{};
  std::vector<StorageRate> rates{};
  std::vector<std::string> warnings{};
};

// Nothing where a part was not asked for.
struct Measurements {
  MeasuringConditions conditions{};
  std::optional<MemoryMeasurements> memory{};
  std::vector<HostRate> host{};
  std::optional<ImageMeasurements> images{};
  std::vector<StorageMeasurements> storage{};
  Seconds took{};
};

// "jpeg", "jpeg 1/2", ...; "sequential read", ...
[[nodiscard]] const char* name_of(ImageWork work);
[[nodiscard]] const char* name_of(StoragePattern pattern);

}  // namespace steelyard::facts
