// NVIDIA's GPUs as their driver tells, through NVML (libnvidia-ml.so.1), opened while the program
// runs. Functions, structures and constants as in NVIDIA's own binding (nvidia-ml-py 13.615,
// pynvml.py) and docs.nvidia.com/deploy/nvml-api.
#pragma once

#include <string>
#include <vector>

#include "facts/topology.h"

namespace steelyard::sense {

struct NvmlAnswer {
  bool loaded = false;                 // there is such a library
  std::string problem;                 // why it tells nothing; empty: it does
  std::string driver;                  // version of the driver
  std::vector<facts::GpuDevice> gpus;  // in NVML's order, which is that of the PCI addresses
};

// `library`: a file or a name for dlopen; empty: $STEELYARD_NVML, else libnvidia-ml.so.1. What a
// GPU does not support is unknown, with a note; what fails is in its `problems`. Nothing is
// guessed.
[[nodiscard]] NvmlAnswer ask_nvml(const std::string& library = {});

// The answer joined to what the kernel lists, by PCI address. GPUs that the driver does not show to
// this process (another job's, another container's) get a problem that says so.
void join(facts::Topology& topology, const NvmlAnswer& answer);

}  // namespace steelyard::sense
