// Host memory of data.loader's process where nothing runs beside it: its own buffers, told by the
// loader's profile (catalog/loaders; docs/model/host-memory.md, "A loader of another kind").
#pragma once

#include "facts/plan.h"
#include "ram/node.h"

namespace steelyard::ram {

// Of the node, in every phase after `startup` the same.
struct LoaderMemory {
  Bytes program, index, read_buffers, batches, threads;
  [[nodiscard]] Bytes total() const { return program + index + read_buffers + batches + threads; }
};
// `job` resolved: machine.gpus, train.micro_batch and the keys of data are read.
[[nodiscard]] LoaderMemory loader_memory(const facts::LoaderProfile& loader, const facts::Job& job,
                                         Bytes sample);

[[nodiscard]] facts::RamPlan memory_of_loader_alone(const Node& node, Bytes sample);

}  // namespace steelyard::ram
