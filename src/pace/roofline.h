// Seconds of one piece of work on one GPU: the slower of arithmetic and memory traffic (Williams et
// al., "Roofline", CACM 2009), and what every kernel takes to start and drain. The shape terms of a
// GEMM are derived in docs/model/compute.md.
#pragma once

#include <optional>

#include "base/quantity.h"
#include "facts/constants.h"
#include "facts/machine.h"
#include "pace/figures.h"
#include "step/program.h"

namespace steelyard::pace {

struct WorkTime {
  Seconds seconds;
  bool arithmetic_bound = false;  // limited by the rate of multiplication, not by memory
};

// What the name of its operation says of a kernel (EfficiencyConstants::kernels).
struct Nature {
  double traffic = 1.0;          // time over that of moving its bytes
  bool copies_channels = false;  // a convolution whose tensors are brought into another order first
  bool grouped = false;  // products whose tokens lie one behind the other: how many says nothing
};

// Nothing when the GPU lacks a figure that this work needs; `missing` then names it.
[[nodiscard]] std::optional<WorkTime> time_of(const step::Work& work, const facts::Gpu& gpu,
                                              const facts::EfficiencyConstants& efficiency,
                                              Missing& missing, const Nature& nature = {});

// What offloading costs: a transfer at the share of the host link that pinned copies reach, work of
// the host's processors at this rank's share of their memory's bandwidth.
[[nodiscard]] bool on_the_host(step::WorkKind kind);
[[nodiscard]] std::optional<Seconds> host_time_of(const step::Work& work, const facts::Gpu& gpu,
                                                  const facts::EfficiencyConstants& efficiency,
                                                  BytesPerSecond host_memory_of_rank,
                                                  Missing& missing);

// What a GEMM of m x n x k, `batch` times, reaches of the rate for large aligned matrices, in (0,
// 1].
[[nodiscard]] Ratio shape_efficiency(const step::Work& gemm, const facts::Gpu& gpu,
                                     const facts::EfficiencyConstants& efficiency);

}  // namespace steelyard::pace
