// Every key of `steelyard probe --json` (schema steelyard.probe/1), once: the same tables write it
// and describe it. A figure is {"value": ..., "from": "measured", "note": "..."}; the value is null
// where nothing tells it. Units stand in the keys.
#pragma once

#include "codec/machine_fields.h"
#include "codec/measurement_fields.h"
#include "codec/rule.h"
#include "facts/probe.h"

namespace steelyard::codec {

inline constexpr const char* kProbeSchema = "steelyard.probe/1";

inline constexpr auto cpu_cache_fields = [](auto& v, auto& c) {
  v.key("level", c.level, about("1 is next to the core"));
  v.key("kind", c.kind, about("data, instruction or unified"));
  v.key("bytes", c.size, about("of one"));
  v.key("instances", c.instances, about("caches of this kind and size"));
  v.key("threads", c.threads, about("that share one"));
};

inline constexpr auto processors_fields = [](auto& v, auto& p) {
  v.key("model", p.model, about("name of the processor"));
  v.key("sockets", p.sockets, about("online"));
  v.key("cores", p.cores, about("online"));
  v.key("threads", p.threads, about("online"));
  v.list("caches", p.caches, cpu_cache_fields, about("by level"));
  v.key("instruction_sets", p.vector_sets, about("those that copies and decoders use"));
  v.key("governors", p.governors, about("of the frequency domains"));
  v.key("virtual_machine", p.virtual_machine, about("a hypervisor runs below"));
};

inline constexpr auto huge_pages_fields = [](auto& v, auto& h) {
  v.key("page_bytes", h.size, about("of one page"));
  v.key("total", h.total, about("pages set aside"));
  v.key("free", h.free, about("pages"));
};

inline constexpr auto host_memory_fields = [](auto& v, auto& m) {
  v.key("total_bytes", m.total, about("without memory of GPUs"));
  v.key("available_bytes", m.available, about("without swapping"));
  v.key("swap_bytes", m.swap, about("set up"));
  v.list("huge_pages", m.huge_pages, huge_pages_fields, about("by size"));
  v.key("transparent_huge_pages", m.transparent_huge_pages, about("always, madvise or never"));
};

inline constexpr auto numa_node_fields = [](auto& v, auto& n) {
  v.key("id", n.id, about("as the kernel counts"));
  v.key("cpus", n.cpus, about("online"));
  v.key("socket", n.socket, about("of its processors"));
  v.key("cores", n.cores, about("physical, online"));
  v.key("memory_bytes", n.memory, about("of the node"));
  v.key("free_bytes", n.free, about("of the node, now"));
  v.key("distances", n.distances, about("to each node; 10 is itself"));
  v.key("of_gpu", n.of_gpu, about("a GPU's own memory"));
};

inline constexpr auto memory_limit_fields = [](auto& v, auto& l) {
  v.key("bytes", l.bytes, about("at most"));
  v.key("by", l.by, about("who sets it"));
};

inline constexpr auto cpu_limit_fields = [](auto& v, auto& l) {
  v.key("threads", l.cpus, about("at most at once"));
  v.key("by", l.by, about("who sets it"));
};

inline constexpr auto host_limits_fields = [](auto& v, auto& l) {
  v.key("memory_bytes", l.memory, about("the least of the machine and all limits"));
  v.key("memory_used_bytes", l.memory_used, about("of the group that limits"));
  v.key("threads", l.cpus, about("likewise"));
  v.key("cores", l.cores, about("that these threads can lie on"));
  v.key("shared_memory_bytes", l.shared_memory, about("of /dev/shm"));
  v.list("memory_limits", l.memory_limits, memory_limit_fields, about("the least first"));
  v.list("cpu_limits", l.cpu_limits, cpu_limit_fields, about("the least first"));
  v.key("cgroup", l.cgroup, about("v1, v2 or hybrid; empty: none"));
  v.key("container", l.container, about("docker, kubernetes, ...; empty: none"));
  v.key("scheduler", l.scheduler, about("Slurm job ...; empty: none"));
};

inline constexpr auto drive_fields = [](auto& v, auto& d) {
  v.key("name", d.name, about("as the kernel calls it"));
  v.key("model", d.model, about("empty: it says none"));
  v.key("bytes", d.size, about("capacity"));
  v.key("rotational", d.rotational, about("spinning disks"));
  v.key("numa_node", d.numa_node, about("it is near"));
  v.key("pci", d.pci, about("address"));
};

inline constexpr auto mount_fields = [](auto& v, auto& m) {
  v.key("path", m.path, about("where it is mounted"));
  v.key("source", m.source, about("device, or the other machine's name of it"));
  v.key("filesystem", m.filesystem, about("ext4, nfs4, ..."));
  v.key("drive", m.drive, about("below it; empty: none of this machine"));
  v.key("network", m.network, about("another machine holds it"));
  v.key("read_only", m.read_only, about("nothing can be written"));
};

inline constexpr auto network_fields = [](auto& v, auto& n) {
  v.key("name", n.name, about("as the kernel calls it"));
  v.key("kind", n.kind, about("ethernet or infiniband"));
  v.key("up", n.up, about("connected"));
  v.key("bytes_per_second", n.speed, about("of the link, one way"));
  v.key("driver", n.driver, about("kernel module"));
  v.key("pci", n.pci, about("address"));
  v.key("numa_node", n.numa_node, about("it is near"));
};

inline constexpr auto pci_link_fields = [](auto& v, auto& l) {
  v.key("gigatransfers_per_second", l.transfers, about("of one lane"));
  v.key("lanes", l.lanes, about("connected"));
  v.key("bytes_per_second", l.rate, about("one way, raw"));
};

inline constexpr auto gpu_links_fields = [](auto& v, auto& l) {
  v.key("peer", l.peer, about("what is at the other end"));
  v.key("peer_pci", l.peer_pci, about("its address; empty: unknown"));
  v.key("count", l.count, about("of links"));
  v.key("bytes_per_second", l.rate, about("of all of them, one way, raw"));
};

inline constexpr auto gpu_instance_fields = [](auto& v, auto& i) {
  v.key("name", i.name, about("as the driver says"));
  v.key("memory_bytes", i.memory, about("of the instance"));
};

inline constexpr auto gpu_rates_fields = [](auto& v, auto& r) {
  v.key("to_device_bytes_per_second", r.to_device, about("from pinned host memory"));
  v.key("from_device_bytes_per_second", r.from_device, about("to pinned host memory"));
  v.key("to_device_pageable_bytes_per_second", r.to_device_pageable, about("not pinned"));
  v.key("from_device_pageable_bytes_per_second", r.from_device_pageable, about("not pinned"));
  v.key("to_device_far_bytes_per_second", r.to_device_far, about("pinned, farthest NUMA node"));
  v.key("from_device_far_bytes_per_second", r.from_device_far, about("pinned, farthest NUMA node"));
  v.key("device_copy_bytes_per_second", r.device_copy, about("read and written"));
  v.key("tf32_flops_per_second", r.tf32, about("of the best GEMM"));
  v.key("fp16_flops_per_second", r.fp16, about("of the best GEMM"));
  v.key("bf16_flops_per_second", r.bf16, about("of the best GEMM"));
  v.key("fp8_flops_per_second", r.fp8, about("of the best GEMM, e4m3"));
};

inline constexpr auto gpu_device_fields = [](auto& v, auto& g) {
  v.key("index", g.index, about("in the order of the PCI addresses"));
  v.key("name", g.name, about("as the driver says"));
  v.key("vendor", g.vendor, about("nvidia, amd, intel"));
  v.key("pci", g.pci, about("address"));
  v.key("memory_bytes", g.memory, about("of the card"));
  v.key("program_memory_bytes", g.program_memory, about("what programs see of it"));
  v.key("memory_used_bytes", g.memory_used, about("by everything, the driver included"));
  v.key("compute_capability", g.compute_capability, about("NVIDIA only"));
  v.key("power_limit_watts", g.power_limit_watts, about("as it is set"));
  v.table("link", g.link, pci_link_fields, about("to the host, now"));
  v.table("link_most", g.link_most, pci_link_fields, about("to the host, what both ends can"));
  v.list("links", g.links, gpu_links_fields, about("NVLink, xGMI"));
  v.key("ecc", g.ecc, about("on"));
  v.key("mig", g.mig, about("on"));
  v.list("instances", g.instances, gpu_instance_fields, about("with MIG"));
  v.key("numa_node", g.numa_node, about("it is near"));
  v.table("rates", g.rates, gpu_rates_fields, about("what was reached"));
  v.key("usable", g.usable, about("the driver shows it to this process"));
  v.key("problems", g.problems, about("what the driver refused to tell"));
};

inline constexpr auto topology_fields = [](auto& v, auto& t) {
  v.key("kernel", t.kernel, about("its release"));
  v.table("processors", t.processors, processors_fields, about("all sockets"));
  v.table("memory", t.memory, host_memory_fields, about("of the host"));
  v.table("limits", t.limits, host_limits_fields, about("what this process may use"));
  v.list("numa_nodes", t.numa, numa_node_fields, about("that have processors or memory"));
  v.list("gpus", t.gpus, gpu_device_fields, about("as driver and kernel list them"));
  v.key("gpu_driver", t.gpu_driver, about("empty: none"));
  v.list("drives", t.drives, drive_fields, about("whole ones"));
  v.list("mounts", t.mounts, mount_fields, about("that can hold data"));
  v.list("network", t.network, network_fields, about("interfaces of devices"));
  v.key("warnings", t.warnings, about("why not to believe a figure"));
};

inline constexpr auto probe_fields = [](auto& v, auto& p) {
  v.constant("schema", kProbeSchema);
  v.table("topology", p.topology, topology_fields, about("what it is built of"));
  v.optional_table("measurements", p.measurements, measurements_fields,
                   about("what it reached; null: nothing was measured"));
  v.table("machine", p.machine, machine_fields, about("as a plan reads it: a machine file"));
};

}  // namespace steelyard::codec
