// What a machine is built of and what a process may use of it, as its kernel and its drivers tell:
// every figure with the file or the call that it comes from, unknown where nothing tells it.
// Sizes are bytes, rates one way and raw (what the link signals, not what copies reach).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/quantity.h"
#include "facts/enums.h"
#include "facts/origin.h"

namespace steelyard::facts {

// All caches of one level and kind that have one size.
struct CpuCache {
  std::int64_t level = 0;
  std::string kind;  // data | instruction | unified
  Bytes size;        // of one
  std::int64_t instances = 0;
  std::int64_t threads = 0;  // that share one
};

struct Processors {
  std::string model;
  Known<std::int64_t> sockets, cores, threads;  // online
  std::vector<CpuCache> caches;
  std::vector<std::string>
      vector_sets;  // avx2, avx512f, sve, ... of those that copies and decoders use
  std::vector<std::string> governors;  // the different ones of all frequency domains
  bool virtual_machine = false;        // the processor says that a hypervisor runs it
};

struct HugePages {
  Bytes size;
  std::int64_t total = 0;
  std::int64_t free = 0;
};

struct HostMemory {
  Known<Bytes> total;      // what the kernel manages, without memory of GPUs
  Known<Bytes> available;  // without swapping
  Known<Bytes> swap;
  std::vector<HugePages> huge_pages;
  std::string transparent_huge_pages;  // always | madvise | never; empty: unknown
};

struct NumaNode {
  std::int64_t id = 0;
  std::vector<std::int64_t> cpus;  // online; none: memory of a GPU or an expander
  Known<std::int64_t> socket, cores;
  Known<Bytes> memory;
  Known<Bytes> free;
  std::vector<std::int64_t> distances;  // to each node, as the firmware says; 10 is itself
  bool of_gpu = false;                  // a GPU's own memory, which its driver gave to the kernel
};

// One thing that holds a process below what the machine has.
struct MemoryLimit {
  Bytes bytes;
  std::string by;  // "cgroup v2 /system.slice/job.service", "Slurm job 4711"
};

struct CpuLimit {
  double cpus = 0;
  std::string by;
};

struct HostLimits {
  Known<Bytes> memory;                     // the least of the machine's own and of all limits
  Known<Bytes> program_memory;             // what programs can allocate in total on an idle card
  Known<Bytes> memory_used;                // of the cgroup that limits, its page cache included
  Known<double> cpus;                      // likewise: threads that can run at once
  Known<std::int64_t> cores;               // that these threads can lie on
  Known<Bytes> shared_memory;              // what /dev/shm takes
  std::vector<MemoryLimit> memory_limits;  // the least first
  std::vector<CpuLimit> cpu_limits;        // the least first
  std::string cgroup;                      // v1 | v2 | hybrid; empty: none
  std::string container;                   // docker, kubernetes, ...; empty: none
  std::string scheduler;                   // "Slurm job 4711"; empty: none
};

struct Drive {
  std::string name;   // nvme0n1
  std::string model;  // empty: it says none
  Known<Bytes> size;
  Known<bool> rotational;
  Known<std::int64_t> numa_node;
  std::string pci;  // address; empty: not of its own
};

struct Mount {
  std::string path;
  std::string source;      // /dev/nvme0n1p2, server:/export
  std::string filesystem;  // ext4
  std::string drive;       // name of the drive below it; empty: none of this machine
  bool network = false;    // another machine holds it
  bool read_only = false;
};

struct NetworkInterface {
  std::string name;
  std::string kind;  // ethernet | infiniband
  bool up = false;
  Known<BytesPerSecond> speed;
  std::string driver;
  std::string pci;
  Known<std::int64_t> numa_node;
};

// A device's link to the host.
struct PciLink {
  Known<double> transfers;  // 1e9 transfers per second and lane: 32 for PCIe 5
  Known<std::int64_t> lanes;
  Known<BytesPerSecond> rate;
};

enum class GpuPeer { gpu, gpu_switch, host, unknown };
STEELYARD_ENUM_NAMES(GpuPeer, "gpu", "switch", "host", "unknown")

// The links between a GPU and one other thing.
struct GpuLinks {
  GpuPeer peer = GpuPeer::unknown;
  std::string peer_pci;  // address; empty: unknown
  std::int64_t count = 0;
  Known<BytesPerSecond> rate;  // of all of them
};

// A part of a GPU that is set up as one of its own (MIG).
struct GpuInstance {
  std::string name;
  Known<Bytes> memory;
};

// What copies and arithmetic reached; unknown where it was not measured.
struct GpuRates {
  Known<BytesPerSecond> to_device, from_device;                    // from pinned host memory
  Known<BytesPerSecond> to_device_pageable, from_device_pageable;  // from memory that is not
  Known<BytesPerSecond> to_device_far, from_device_far;  // pinned, from the farthest NUMA node
  Known<BytesPerSecond> device_copy;                     // bytes read and written
  // The best product of matrices of cuBLASLt, by the precision of the operands.
  Known<FlopsPerSecond> tf32, fp16, bf16, fp8;
};

struct GpuDevice {
  std::int64_t index = 0;
  std::string name;    // as the driver says; empty: no driver
  std::string vendor;  // nvidia | amd | intel | ...
  std::string pci;     // address, lower case, with a domain of four digits
  Known<Bytes> memory;
  Known<Bytes> program_memory;  // what programs can allocate in total on an idle card
  Known<Bytes> memory_used;     // by everything, the driver included
  std::optional<double> compute_capability;
  Known<double> power_limit_watts;
  PciLink link;                 // as it is now; idle GPUs slow theirs down
  PciLink link_most;            // what both ends can
  std::vector<GpuLinks> links;  // NVLink, xGMI
  Known<bool> ecc;
  Known<bool> mig;
  std::vector<GpuInstance> instances;
  Known<std::int64_t> numa_node;
  GpuRates rates;
  bool usable = true;                 // the driver shows it to this process
  std::vector<std::string> problems;  // what the driver refused to tell, and why
};

struct Topology {
  std::string kernel;
  Processors processors;
  HostMemory memory;
  std::vector<NumaNode> numa;
  HostLimits limits;
  std::vector<Drive> drives;
  std::vector<Mount> mounts;
  std::vector<NetworkInterface> network;
  std::vector<GpuDevice> gpus;
  std::string gpu_driver;  // its version; empty: none
  // Why not to believe a figure, or what else a reader should know.
  std::vector<std::string> warnings;
};

}  // namespace steelyard::facts
