// The NUMA nodes of a host, and where its GPUs, network interfaces and drives hang. Memory in
// bytes; nodes are named by the numbers that the kernel gives them (numactl --hardware). What a
// machine does not say stays unknown: `numa_layout` says what is taken instead.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/quantity.h"
#include "facts/origin.h"

namespace steelyard::facts {

struct Machine;

struct HostNode {
  std::int64_t id = 0;
  Known<std::int64_t> socket{};
  Known<Bytes> memory{};
  Known<std::int64_t> cores{};  // physical
  std::string cpus{};           // hardware threads, "0-15,128-143"; empty: unknown
};

// A GPU, a network interface or a drive, and the node whose lanes it hangs on.
struct NearNode {
  std::string name{};  // empty: none of its own
  Known<std::int64_t> node{};
};

struct HostNuma {
  std::vector<HostNode> nodes;
  std::vector<NearNode> gpus;  // in the order of their PCI addresses, as CUDA counts them
  std::vector<NearNode> nics, drives;
  std::string source;
};

// How many hardware threads a list in the kernel's format names ("0-15,128-143" are 32); nothing
// where it is no such list.
[[nodiscard]] std::optional<std::int64_t> threads_of_list(std::string_view list);

// The nodes that a plan reckons with, and of the first GPUs the node (an index into `nodes`).
struct NumaLayout {
  std::vector<HostNode> nodes;  // each with its socket; one without any figure: nothing is known
  std::int64_t sockets = 1;
  std::vector<std::size_t> node_of_gpu;
  bool nodes_assumed = false;  // one node per socket, each with an equal part of the memory
  bool gpus_assumed = false;   // in order over the nodes, in equal parts

  [[nodiscard]] std::int64_t socket_of_gpu(std::size_t gpu) const {
    return *nodes[node_of_gpu[gpu]].socket;
  }
};
[[nodiscard]] NumaLayout numa_layout(const Machine& machine, std::int64_t gpus);

// What one direction of one link between sockets carries, of one byte that ...
struct SocketShares {
  double scattered = 0.0;  // passes between processes that run anywhere
  double to_gpus = 0.0;    // such a process hands to a GPU, or takes from it
  double bound = 0.0;      // one bound rank reads where another one put it
};
[[nodiscard]] SocketShares socket_shares(const NumaLayout& layout);

}  // namespace steelyard::facts
