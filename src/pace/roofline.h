// Seconds of one piece of work on one GPU: the slower of arithmetic and memory traffic (Williams et
// al., "Roofline", CACM 2009), and what every kernel takes to start and drain. The shape terms of a
// GEMM are derived in docs/model/compute.md.
#pragma once

#include <cstdint>
#include <optional>

#include "base/quantity.h"
#include "facts/constants.h"
#include "facts/machine.h"
#include "pace/convolutions.h"
#include "pace/figures.h"
#include "step/program.h"

namespace steelyard::pace {

struct WorkTime {
  Seconds seconds;
  bool arithmetic_bound = false;  // limited by the rate of multiplication, not by memory
  double launches = 1.0;          // kernels; a part of one where it works on many tensors at once
  Seconds call{};                 // of the host, beside launching them (calls_of)
  bool read_by_host = false;      // the host launches nothing further before it has ended
  bool beside_exchange = false;   // of shared experts, on a stream of its own
};

// Which side of a product counts tokens: of a linear layer's, the rows of forward and of the
// input's gradient, the depth of the weight's.
enum class TokenSide : std::uint8_t { none, rows, depth };

// What the name of its operation says of a kernel (EfficiencyConstants::kernels).
struct Nature {
  double traffic = 1.0;          // time over that of moving its bytes
  bool slow_products = false;    // `traffic` slows their arithmetic, too
  bool copies_channels = false;  // a convolution whose tensors are brought into another order first
  bool convolution = false;
  bool channels_last = false;  // of a convolution's tensors
  ConvolutionPass pass = ConvolutionPass::none;
  // Each channel for itself: there is no product of matrices. By the framework's own kernels, which
  // compute an address for each of its products, or by the library's, which wait for memory.
  bool depthwise = false, own_depthwise = false;
  TokenSide tokens = TokenSide::none;
  bool grouped = false;    // products whose tokens lie one behind the other: how many says nothing
  bool efficient = false;  // the memory-efficient attention kernel, not FlashAttention
  bool vector_unaligned = false;  // unaligned products use no matrix units (cuBLAS before 11)
  // Of an optimizer: kernels per parameter, or per list of them, and passes over its bytes. 0: one.
  double kernels = 0.0, passes = 1.0;
  bool together = false;
  bool each_group = false;  // one kernel for each of grouped products
  bool in_graph = false;    // launched with a CUDA graph
  bool read_by_host = false;
  bool shared_expert = false;  // whose work runs beside the exchanges of tokens
  Seconds call{};              // of the host, whatever it launches
  // A thread loads this much of 16 bytes at once: PyTorch's own kernels load four elements,
  // whatever their size (aten/src/ATen/native/cuda/thread_constants.h, thread_work_size).
  double load = 1.0;
};

// Nothing when the GPU lacks a figure that this work needs; `missing` then names it.
[[nodiscard]] std::optional<WorkTime> time_of(const step::Work& work, const facts::Gpu& gpu,
                                              const facts::EfficiencyConstants& efficiency,
                                              Missing& missing, const Nature& nature = {});

// What a rank gets of its host while all ranks of the node ask for as much.
struct HostShare {
  BytesPerSecond memory;
  BytesPerSecond stepping{};  // of memory, what the threads that step move; 0: all
  BytesPerSecond drive_read{}, drive_write{};
  std::optional<FlopsPerSecond> wide{}, half{};  // of products: fp32; bf16 and fp16
};

// What offloading costs: a transfer at the share of the host link that pinned copies reach, work of
// the host's processors and of its drive at this rank's share of their bandwidth.
[[nodiscard]] bool on_the_host(step::WorkKind kind);
[[nodiscard]] bool of_drive(step::WorkKind kind);
[[nodiscard]] std::optional<Seconds> host_time_of(const step::Work& work, const facts::Gpu& gpu,
                                                  const facts::EfficiencyConstants& efficiency,
                                                  const HostShare& host, Missing& missing);

// A kernel over lists takes 36 to 110 tensors and 320 pieces of 65,536 elements
// (aten/src/ATen/native/cuda/MultiTensorApply.cuh, depth_to_max_tensors, depth_to_max_blocks).
[[nodiscard]] double launches_of(const step::Work& work, const Nature& nature);

// Of the HBM bandwidth, by streaming kernels. A multiprocessor keeps so many bytes of loads in
// flight (EfficiencyConstants::loads_in_flight) while memory answers: the more bandwidth there is
// for each of them, the less of it is reached (Little's law; docs/model/compute.md).
[[nodiscard]] Ratio streamed_share(const facts::Gpu& gpu, BytesPerSecond bandwidth,
                                   const facts::EfficiencyConstants& efficiency, double load = 1.0);

// What a GEMM of m x n x k, `batch` times, reaches of the rate for large aligned matrices, in (0,
// 1].
[[nodiscard]] Ratio shape_efficiency(const step::Work& gemm, const facts::Gpu& gpu,
                                     const facts::EfficiencyConstants& efficiency);

}  // namespace steelyard::pace
