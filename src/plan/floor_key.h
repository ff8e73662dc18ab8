// What layouts that share a program of floors have in common (plan/floor.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "facts/job.h"

namespace steelyard::plan {

template <class Enum>
[[nodiscard]] std::int64_t number_of(Enum value) {
  return static_cast<std::int64_t>(value);
}

// Of a key, by what it says of a layout.
enum Say : std::size_t {
  kTensor,
  kContext,
  kExpert,
  kExpertTensor,
  kSequenceParallel,
  kSharding,
  kMicroBatch,
  kRecompute,
  kRecomputeEvery,
  kRecomputeLayers,
  kPrecision,
  kParameters,  // where these lie
  kOptimizer,
  kGradients,
  kActivations,
  kAccumulates,
  kReplicated,
  kShardGroup,   // where replicas do not all share
  kReducesLate,  // behind the last micro-batch alone
  kSayings
};
using Key = std::array<std::int64_t, kSayings>;

// Of a layout with so many replicas; `accumulates`: over several micro-batches.
[[nodiscard]] Key key_of(const facts::Job& layout, std::int64_t data, bool accumulates);

// As plan/resolve.cpp fills it in.
[[nodiscard]] std::int64_t shard_group_of(const facts::Job& layout, std::int64_t data);

// Stages of a pipeline sum whole gradients up and reduce them once (step/sharded_units.cpp,
// sums_whole_gradients): what one rank does with each micro-batch is more than that.
[[nodiscard]] bool reduces_late(const facts::ParallelKeys& parallel);

}  // namespace steelyard::plan
