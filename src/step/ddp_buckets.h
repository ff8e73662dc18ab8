// Sizes of the flat tensors that DistributedDataParallel copies gradients into.
#pragma once

#include <cstdint>
#include <vector>

#include "base/quantity.h"
#include "facts/dtype.h"
#include "model/graph.h"

namespace steelyard::step {

// As rebuilt after the first step (torch/csrc/distributed/c10d/reducer.cpp, rebuild_buckets and
// compute_bucket_assignment_by_size): gradients in the order in which they are ready, which is
// taken to be that of the weights backwards; a bucket is full once it holds `cap`, the first one
// once it holds 1 MiB (dist._DEFAULT_FIRST_BUCKET_BYTES). No gradient is cut. In bytes of
// `gradient`, first ready first; their sum is that of all gradients of the rank.
[[nodiscard]] std::vector<Bytes> ddp_buckets(const model::Graph& graph, facts::DType gradient,
                                             Bytes cap);

}  // namespace steelyard::step
