// A machine: one node's GPUs, host, storage, network and price. Unknown figures stay unknown; a
// plan that needs one says so.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/quantity.h"
#include "facts/host_rates.h"
#include "facts/numa.h"
#include "facts/origin.h"

namespace steelyard::facts {

// Dense (not sparse) peak arithmetic rates, accumulating as the vendor states.
struct PeakRates {
  Known<FlopsPerSecond> fp32, tf32, fp16, bf16, fp8, fp4;
};

struct Gpu {
  std::string id;
  std::string name;
  std::string vendor;
  std::string architecture;                  // "hopper"; empty when unknown
  std::optional<double> compute_capability;  // 9.0; NVIDIA only
  Known<Bytes> memory;                       // what a program can allocate in total on an idle card
  Known<BytesPerSecond> memory_bandwidth;
  PeakRates peak;
  Known<FlopsPerSecond> measured_bf16;  // the best GEMM rate somebody measured
  Known<BytesPerSecond> link;           // GPU to GPU inside a node, one way
  std::int64_t link_gpus = 0;           // that it joins (a bridge: 2); 0: all of a node
  bool peer_access = true;              // over PCIe; the driver denies it to GeForce cards
  Known<BytesPerSecond> host_link;      // GPU to host, one way (PCIe or C2C)
  // Its share of the network in the vendor's reference server, for a job that names no machine.
  Known<BytesPerSecond> reference_network;
  Known<double> power_watts;
  std::vector<std::string> sources;
  std::string confidence;  // high | medium | low
};

struct Host {
  Known<Bytes> memory;          // per node
  Known<std::int64_t> threads;  // hardware threads (vCPUs)
  Known<std::int64_t> cores;    // physical cores
  Known<std::int64_t> sockets;
  Known<BytesPerSecond> socket_link;    // between two sockets, one way
  Known<std::int64_t> gpus_per_uplink;  // that share a PCIe switch's lanes to the host
  std::string cpu_model;
  Known<BytesPerSecond> memory_bandwidth;              // reading, all nodes together
  Known<BytesPerSecond> thread_copy;                   // one thread's memcpy, bytes copied
  Known<FlopsPerSecond> products_fp32, products_bf16;  // large products, all cores together
  HostRates rates{};                                   // by NUMA node and by size of picture
  HostNuma numa;
};

struct Storage {
  std::string name;  // "nvme", "network"
  Known<Bytes> capacity;
  Known<BytesPerSecond> read;  // sequential, per node
  Known<BytesPerSecond> write;
  Known<double> read_operations_per_second;
  Known<BytesPerSecond> cached_read;  // one thread, of pages that memory holds
  // Of a share that several nodes reach: what it gives all of them together.
  Known<BytesPerSecond> shared_read, shared_write;
  Known<double> shared_read_operations_per_second;
};

struct Price {
  double per_hour = 0.0;  // per node
  std::string currency;
  std::string date;
  std::string source;
};

struct Machine {
  std::string id;
  std::string name;
  std::string provider;
  std::string
      kind;  // cloud-vm | cloud-baremetal | appliance | server | workstation | hpc-node | bare-gpu
  Gpu gpu;
  std::int64_t gpus = 1;  // per node
  // GPUs that one fabric of direct links joins where it spans nodes: 72 of an NVL72 rack.
  Known<std::int64_t> fabric_gpus;
  Host host;
  std::vector<Storage> storage;
  Known<BytesPerSecond> network_per_gpu;  // between nodes, one way
  std::optional<Price> price;
  std::vector<std::string> sources;
  std::string confidence;
  std::string notes;
};

}  // namespace steelyard::facts
