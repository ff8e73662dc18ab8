// The figures of GPU and machine that a step needs, and the names of those that are unknown.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/quantity.h"
#include "facts/dtype.h"
#include "facts/enums.h"
#include "facts/machine.h"

namespace steelyard::pace {

// What is asked for and unknown, in the order of asking, each once.
class Missing {
 public:
  void add(std::string what);
  [[nodiscard]] const std::vector<std::string>& names() const { return names_; }
  [[nodiscard]] bool any() const { return !names_.empty(); }

 private:
  std::vector<std::string> names_;
};

// Compute capability 8.0 is Ampere, the first with tf32 and bf16.
[[nodiscard]] bool before_ampere(const facts::Gpu& gpu);

// fp32 lanes of one multiprocessor: products per cycle of its vector units (CUDA C Programming
// Guide, "Arithmetic Instructions"): 64 from compute capability 7.0 to 8.0, else 128.
[[nodiscard]] double vector_lanes(double compute_capability);

// Exponentials that one multiprocessor takes per cycle: 16 (CUDA C Programming Guide, "Arithmetic
// Instructions"), twice as many on compute capability 10.3 (NVIDIA, "Inside NVIDIA Blackwell
// Ultra": 10.7 instead of 5 T exponentials/s).
constexpr double kExponentials = 16.0;
[[nodiscard]] double exponentials(double compute_capability);

// The dense peak rate of arithmetic in `type`. `tf32`: fp32 operands multiplied as tf32, which
// processors before Ampere carry out as plain fp32. Unknown: nothing, and `missing` names it.
[[nodiscard]] std::optional<FlopsPerSecond> peak_rate(const facts::Gpu& gpu, facts::DType type,
                                                      bool tf32, Missing& missing);

// The peak that MFU is measured against: of the type in which the job multiplies. Nothing for
// precisions whose peak the catalogue does not hold.
[[nodiscard]] std::optional<FlopsPerSecond> peak_rate(const facts::Gpu& gpu,
                                                      facts::Precision precision);

[[nodiscard]] std::optional<BytesPerSecond> host_link(const facts::Gpu& gpu, Missing& missing);
[[nodiscard]] std::optional<BytesPerSecond> memory_bandwidth(const facts::Gpu& gpu,
                                                             Missing& missing);

// How GPUs of a node reach each other.
struct Link {
  BytesPerSecond rate;        // one way, as the vendor states it
  bool through_host = false;  // no GPU link: over PCIe and the host
};
// A bridge joins a pair; a group of more goes through the host.
[[nodiscard]] std::optional<Link> link_inside_node(const facts::Gpu& gpu, std::int64_t ranks,
                                                   Missing& missing);

// One way, of one GPU's share.
[[nodiscard]] std::optional<BytesPerSecond> network(const facts::Machine& machine,
                                                    Missing& missing);

}  // namespace steelyard::pace
