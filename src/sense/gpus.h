// GPUs as the kernel lists them, without the vendors' libraries: PCI class and vendor, NVIDIA's
// /proc/driver/nvidia, AMD's files of amdgpu (kernel: gpu/amdgpu/driver-misc.rst, "GPU Memory
// Usage"; drivers/gpu/drm/amd/amdkfd/kfd_topology.c for the links).
#pragma once

#include <vector>

#include "facts/topology.h"
#include "sense/tree.h"

namespace steelyard::sense {

// In the order of their PCI addresses, which is also NVML's. What draws the console of a server
// (ASPEED, Matrox, virtio) is none.
[[nodiscard]] std::vector<facts::GpuDevice> gpus(const Tree& tree);

// NVIDIA's or AMD's kernel module; empty where there is none.
[[nodiscard]] std::string gpu_driver(const Tree& tree);

}  // namespace steelyard::sense
