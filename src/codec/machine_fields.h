// Every key of a machine file (schema steelyard.machine/1): one node's GPUs, host, storage, network
// and price. A figure is {"value": ..., "from": "measured", "note": "..."}, a bare number (then it
// counts as given) or null (unknown). The unit stands in the key.
#pragma once

#include "codec/rule.h"

namespace steelyard::codec {

inline constexpr const char* kMachineSchema = "steelyard.machine/1";

inline constexpr auto peak_fields = [](auto& v, auto& p) {
  constexpr Rule kRate = between(kLeastRate, kMostFlopsPerSecond, "FLOP per second, dense");
  v.key("fp32", p.fp32, kRate);
  v.key("tf32", p.tf32, kRate);
  v.key("fp16", p.fp16, kRate);
  v.key("bf16", p.bf16, kRate);
  v.key("fp8", p.fp8, kRate);
  v.key("fp4", p.fp4, kRate);
};

inline constexpr auto gpu_fields = [](auto& v, auto& g) {
  v.key("id", g.id, about("catalogue id"));
  v.key("name", g.name, required(about("name of the card")));
  v.key("vendor", g.vendor, about("who makes it"));
  v.key("architecture", g.architecture, about("hopper, ...; empty when unknown"));
  v.key("compute_capability", g.compute_capability,
        Rule{.about = "NVIDIA only, 9.0", .low = 0, .high = 1000, .null_allowed = true});
  v.key("memory_bytes", g.memory, between(1, kMostBytes, "what programs can allocate in total"));
  v.key("memory_bandwidth_bytes_per_second", g.memory_bandwidth,
        between(kLeastRate, kMostBytesPerSecond, "of its own memory"));
  v.table("peak_flops_per_second", g.peak, peak_fields, about("dense, by precision"));
  v.key("measured_bf16_flops_per_second", g.measured_bf16,
        between(kLeastRate, kMostFlopsPerSecond, "the best GEMM rate somebody measured"));
  v.key("link_bytes_per_second", g.link,
        between(kLeastRate, kMostBytesPerSecond, "GPU to GPU inside a node, one way"));
  v.key("host_link_bytes_per_second", g.host_link,
        between(kLeastRate, kMostBytesPerSecond, "GPU to host, one way"));
  v.key("power_watts", g.power_watts, between(0, kMostWatts, "of one card"));
  v.key("sources", g.sources, about("where the figures come from"));
  v.key("confidence", g.confidence, about("high, medium or low"));
};

inline constexpr auto host_memory_rate_fields = [](auto& v, auto& r) {
  constexpr Rule kRate = between(0, kMostBytesPerSecond, "as programs count: a copy of n is 2 n");
  v.key("core_node", r.core_node, between(0, kMostCores, "NUMA node of the threads"));
  v.key("memory_node", r.memory_node, between(0, kMostCores, "NUMA node of the memory"));
  v.key("threads", r.threads, between(1, kMostCores, "side by side"));
  v.key("read_bytes_per_second", r.read, kRate);
  v.key("write_bytes_per_second", r.write, kRate);
  v.key("copy_bytes_per_second", r.copy, kRate);
  v.key("triad_bytes_per_second", r.triad, kRate);
};

inline constexpr auto host_image_rate_fields = [](auto& v, auto& r) {
  v.key("work", r.work, required(about("jpeg, png, jpeg sample, png sample, cached record, ...")));
  v.key("width", r.width,
        required(between(0, kMostPixels, "of the stored picture; 0: no picture")));
  v.key("height", r.height,
        required(between(0, kMostPixels, "of the stored picture; 0: no picture")));
  v.key("compressed_bytes", r.compressed, between(0, kMostBytes, "of the stored picture"));
  v.key("threads", r.threads, between(1, kMostCores, "side by side"));
  v.key("images_per_second", r.images,
        required(between(kLeastRate, kMostRate, "of all threads together")));
};

inline constexpr auto host_decode_model_fields = [](auto& v, auto& m) {
  v.key("work", m.work, required(about("jpeg, jpeg 1/2, png, ...")));
  v.key("seconds_per_pixel", m.per_pixel, required(between(0, 1, "of the stored picture")));
  v.key("seconds_per_byte", m.per_byte, required(between(0, 1, "of the stored picture")));
};

inline constexpr auto host_rates_fields = [](auto& v, auto& r) {
  v.list("memory", r.memory, host_memory_rate_fields, about("bandwidth by NUMA node"));
  v.list("images", r.images, host_image_rate_fields, about("decoding by size of picture"));
  v.list("decode", r.decode, host_decode_model_fields, about("one picture on one core"));
  v.key("source", r.source, about("how they were measured"));
};

inline constexpr auto host_node_fields = [](auto& v, auto& n) {
  v.key("id", n.id, required(between(0, kMostCores, "as the kernel counts")));
  v.key("socket", n.socket, between(0, kMostCores, "it belongs to"));
  v.key("memory_bytes", n.memory, between(0, kMostBytes, "of the node"));
  v.key("cores", n.cores, between(0, kMostCores, "physical cores of the node"));
  v.key("cpus", n.cpus, about("its hardware threads, 0-15,128-143; empty: unknown"));
};

inline constexpr auto near_node_fields = [](auto& v, auto& n) {
  v.key("name", n.name, about("mlx5_0, nvme0n1, ...; GPUs need none"));
  v.key("numa_node", n.node, between(0, kMostCores, "whose lanes it hangs on"));
};

inline constexpr auto host_numa_fields = [](auto& v, auto& n) {
  v.list("nodes", n.nodes, host_node_fields, about("empty: one per socket"));
  v.list("gpus", n.gpus, near_node_fields,
         about("in CUDA's order; empty: in order over the nodes"));
  v.list("nics", n.nics, near_node_fields, about("network interfaces; empty: unknown"));
  v.list("drives", n.drives, near_node_fields, about("empty: unknown"));
  v.key("source", n.source, about("where the layout comes from"));
};

inline constexpr auto host_fields = [](auto& v, auto& h) {
  v.key("memory_bytes", h.memory, between(1, kMostBytes, "per node"));
  v.key("threads", h.threads, between(1, kMostCores, "hardware threads per node"));
  v.key("cores", h.cores, between(1, kMostCores, "physical cores per node"));
  v.key("sockets", h.sockets, between(1, kMostCores, "sockets per node"));
  v.key("socket_link_bytes_per_second", h.socket_link,
        between(kLeastRate, kMostBytesPerSecond, "between two sockets, one way"));
  v.key("gpus_per_uplink", h.gpus_per_uplink,
        between(1, kMostGpusPerNode, "GPUs that share a PCIe switch's lanes to the host"));
  v.key("cpu_model", h.cpu_model, about("name of the processor"));
  v.key("memory_bandwidth_bytes_per_second", h.memory_bandwidth,
        between(kLeastRate, kMostBytesPerSecond, "reading, all nodes together"));
  v.key("thread_copy_bytes_per_second", h.thread_copy,
        between(kLeastRate, kMostBytesPerSecond, "one thread copying memory, bytes copied"));
  v.key("products_fp32_flops_per_second", h.products_fp32,
        between(kLeastRate, kMostFlopsPerSecond, "large matrix products, all cores together"));
  v.key("products_bf16_flops_per_second", h.products_bf16,
        between(kLeastRate, kMostFlopsPerSecond, "large matrix products, all cores together"));
  v.table("rates", h.rates, host_rates_fields, about("as measured, by node and size of picture"));
  v.table("numa", h.numa, host_numa_fields, about("its NUMA nodes and what hangs on them"));
};

inline constexpr auto storage_fields = [](auto& v, auto& s) {
  v.key("name", s.name, required(about("nvme, network, ...")));
  v.key("capacity_bytes", s.capacity, between(1, kMostBytes, "of a node"));
  v.key("read_bytes_per_second", s.read,
        between(kLeastRate, kMostBytesPerSecond, "sequential, per node"));
  v.key("write_bytes_per_second", s.write,
        between(kLeastRate, kMostBytesPerSecond, "sequential, per node"));
  v.key("read_operations_per_second", s.read_operations_per_second,
        between(kLeastRate, kMostRate, "small random reads, per node"));
  v.key("cached_read_bytes_per_second", s.cached_read,
        between(kLeastRate, kMostBytesPerSecond, "one thread, of pages that memory holds"));
  v.key("shared_read_bytes_per_second", s.shared_read,
        between(kLeastRate, kMostBytesPerSecond, "by all nodes that reach it together"));
  v.key("shared_write_bytes_per_second", s.shared_write,
        between(kLeastRate, kMostBytesPerSecond, "by all nodes that reach it together"));
  v.key("shared_read_operations_per_second", s.shared_read_operations_per_second,
        between(kLeastRate, kMostRate, "small random reads of all nodes together"));
};

inline constexpr auto price_fields = [](auto& v, auto& p) {
  v.key("per_hour", p.per_hour, required(between(0, kMostPricePerHour, "of a node")));
  v.key("currency", p.currency, required(about("USD, EUR, ...")));
  v.key("date", p.date, about("when it was seen"));
  v.key("source", p.source, about("where it was seen"));
};

inline constexpr auto machine_fields = [](auto& v, auto& m) {
  constexpr Rule kNullable = {.about = "when known", .null_allowed = true};
  v.constant("schema", kMachineSchema);
  v.key("id", m.id, about("catalogue id"));
  v.key("name", m.name, about("what it is called"));
  v.key("provider", m.provider, about("who sells or rents it"));
  v.key("kind", m.kind, about("cloud-vm, appliance, server, workstation, bare-gpu, ..."));
  v.key("gpus", m.gpus, required(between(0, kMostGpusPerNode, "GPUs per node")));
  v.key("fabric_gpus", m.fabric_gpus,
        between(1, kMostFabricGpus, "GPUs that direct links join, across nodes"));
  v.table("gpu", m.gpu, gpu_fields, required(about("one of the GPUs")));
  v.table("host", m.host, host_fields, required(about("one node without its GPUs")));
  v.list("storage", m.storage, storage_fields, about("what data can be read from"));
  v.key("network_bytes_per_second_per_gpu", m.network_per_gpu,
        between(kLeastRate, kMostBytesPerSecond, "between nodes, one way"));
  v.optional_table("price", m.price, price_fields, kNullable);
  v.key("sources", m.sources, about("where the figures come from"));
  v.key("confidence", m.confidence, about("high, medium or low"));
  v.key("notes", m.notes, about("what else a reader should know"));
};

}  // namespace steelyard::codec
