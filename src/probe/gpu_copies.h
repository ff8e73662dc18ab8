// How fast bytes move between host memory and each GPU, by the CUDA driver's copy engines: the
// driver's library is opened while the program runs. Functions as in cuda.h 12.9; the method is
// nvbandwidth's (NVIDIA/nvbandwidth README): large buffers, the median of several copies after one
// that is not counted, host memory on the GPU's own NUMA node.
#pragma once

#include <string>

#include "base/quantity.h"
#include "facts/topology.h"

namespace steelyard::probe {

struct CopyOptions {
  std::string library{};                          // empty: $STEELYARD_CUDA, else libcuda.so.1
  Bytes buffer = Bytes(std::int64_t{512} << 20);  // of pinned host memory and twice on the GPU
  Bytes host_memory_free = Bytes(std::int64_t{1} << 62);  // an eighth of it is taken at most
  int runs = 5;
};

// Fills `rates` of the GPUs that CUDA shows to this process, found by PCI address, and their memory
// as programs see it. What fails stays unknown and is said in the GPU's problems; no library or no
// start: one warning where there are NVIDIA GPUs. Everything taken is given back.
void measure_copies(facts::Topology& topology, const CopyOptions& options);

}  // namespace steelyard::probe
