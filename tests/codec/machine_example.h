// A machine with known, unknown, measured and given figures.
#pragma once

#include "facts/machine.h"

namespace steelyard {

inline facts::Machine example_machine() {
  using facts::Provenance;
  facts::Machine machine;
  machine.id = "node-7";
  machine.name = "a node with eight cards";
  machine.provider = "own";
  machine.kind = "server";
  machine.gpus = 8;
  machine.gpu.id = "h100-sxm-80gb";
  machine.gpu.name = "NVIDIA H100 80GB HBM3";
  machine.gpu.vendor = "nvidia";
  machine.gpu.architecture = "hopper";
  machine.gpu.compute_capability = 9.0;
  machine.gpu.memory = {Bytes(85'028'896'768), Provenance::measured, "total, on an idle card"};
  machine.gpu.memory_bandwidth = {BytesPerSecond(3.35e12), Provenance::catalogue};
  machine.gpu.peak.bf16 = {FlopsPerSecond(989.4e12), Provenance::catalogue, "dense"};
  machine.gpu.link = {BytesPerSecond(450e9), Provenance::catalogue};
  machine.gpu.sources = {"https://example.org/datasheet"};
  machine.gpu.confidence = "high";
  machine.host.memory = {Bytes(std::int64_t{2} << 40), Provenance::measured};
  machine.host.threads = {224, Provenance::measured};
  machine.host.cores = {112, Provenance::derived, "two threads per core"};
  machine.host.cpu_model = "a processor";
  machine.host.memory_bandwidth = {BytesPerSecond(4e11), Provenance::measured, "reading"};
  machine.host.thread_copy = {BytesPerSecond(12e9), Provenance::measured};
  machine.host.rates.memory = {{.core_node = 0,
                                .memory_node = 1,
                                .threads = 56,
                                .read = BytesPerSecond(1e11),
                                .write = BytesPerSecond(8e10),
                                .copy = BytesPerSecond(9e10),
                                .triad = BytesPerSecond(9.5e10)}};
  machine.host.rates.images = {{.work = "jpeg sample",
                                .width = 500,
                                .height = 375,
                                .compressed = Bytes(110'000),
                                .threads = 1,
                                .images = SamplesPerSecond(651.5)}};
  machine.host.rates.decode = {
      {.work = "jpeg", .per_pixel = Seconds(1.5e-9), .per_byte = Seconds(6.75e-9)}};
  machine.host.rates.source = "libjpeg-turbo 2.1.5, synthetic images";
  machine.host.numa.nodes = {{.id = 0, .socket = {0, Provenance::measured}, .cpus = "0-55,112-167"},
                             {.id = 1,
                              .socket = {1, Provenance::measured},
                              .memory = {Bytes(std::int64_t{1} << 40), Provenance::measured},
                              .cores = {56, Provenance::measured}}};
  for (const std::int64_t node : {0, 0, 0, 0, 1, 1, 1, 1}) {
    machine.host.numa.gpus.push_back({"", {node, Provenance::measured}});
  }
  machine.host.numa.nics = {{"mlx5_0", {1, Provenance::measured}}, {"eth0", {}}};
  machine.host.numa.source = "/sys";
  machine.storage.resize(2);
  machine.storage[0].cached_read = {BytesPerSecond(7e9), Provenance::measured};
  machine.storage[0].name = "nvme";
  machine.storage[0].read = {BytesPerSecond(6.8e9), Provenance::measured, "direct, 1 MiB blocks"};
  machine.storage[1].name = "network";
  machine.network_per_gpu = {BytesPerSecond(50e9), Provenance::given};
  machine.price = {.per_hour = 98.32, .currency = "USD", .date = "2024-05", .source = "list"};
  machine.notes = "measured twice";
  return machine;
}

}  // namespace steelyard
