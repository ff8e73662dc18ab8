// Seconds of one collective by ring algorithms: every rank sends its share around the ring, so the
// slowest link carries (n-1)/n of the buffer once (all-gather, reduce-scatter) or twice
// (all-reduce). Source: nccl-tests, doc/PERFORMANCE.md; latencies as NCCL counts them in
// src/graph/tuning.cc. Derivation and the rail assumption: docs/model/communication.md.
#pragma once

#include <optional>

#include "base/quantity.h"
#include "facts/constants.h"
#include "facts/machine.h"
#include "pace/figures.h"
#include "step/program.h"

namespace steelyard::pace {

// Zero for a group of one rank. Nothing when the machine lacks a link that the group needs;
// `missing` then names it.
[[nodiscard]] std::optional<Seconds> time_of(const step::Communication& communication,
                                             const facts::Machine& machine,
                                             const facts::EfficiencyConstants& efficiency,
                                             Missing& missing);

// What a collective that takes `time` moves over its link, of the traffic at which it slows the
// work beside it by `overlap_slowdown`: kernels that wait for a slow network leave the memory and
// most multiprocessors alone. 1 where nobody says how fast the memory is.
[[nodiscard]] double crowding_of(const step::Communication& communication,
                                 const facts::Machine& machine,
                                 const facts::EfficiencyConstants& efficiency, Seconds time);

}  // namespace steelyard::pace
