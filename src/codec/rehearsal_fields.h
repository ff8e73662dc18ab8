// Every key of `steelyard rehearse --json` (schema steelyard.rehearsal/1), once: the same table
// writes it and describes it.
#pragma once

#include "codec/leaf.h"
#include "facts/rehearsal.h"

namespace steelyard::codec {

inline constexpr const char* kRehearsalSchema = "steelyard.rehearsal/1";

inline constexpr auto rehearsal_setting_fields = [](auto& v, auto& s) {
  v.key("data", s.data, about("folder or file"));
  v.key("format", s.format, about("how its records lie in files"));
  v.key("records", s.records, about("in it"));
  v.key("bytes", s.bytes, about("of all records, as stored"));
  v.key("accelerators", s.accelerators, about("that took batches"));
  v.key("batch", s.batch, about("samples of one accelerator's step"));
  v.key("workers", s.workers, about("decoding threads"));
  v.key("prefetch", s.prefetch, about("batches ahead per accelerator"));
  v.key("step_time", s.step_time, about("seconds; 0: accelerators take what comes"));
  v.key("direct", s.direct, about("past the page cache"));
  v.key("reader", s.reader, about("io_uring or threads"));
  v.key("read_depth", s.read_depth, about("most requests under way at once"));
};

inline constexpr auto rehearsal_stage_fields = [](auto& v, auto& s) {
  v.key("name", s.name, about("read, decode or accelerator"));
  v.key("threads", s.threads, about("side by side"));
  v.key("can", s.can, about("samples per second at its busy time; null: it was never busy"));
  v.key("planned", s.planned, about("samples per second; null without a plan"));
  v.key("busy", s.busy, about("seconds, sum over its threads"));
  v.key("waits_for_data", s.waits_for_data, about("seconds, sum over its threads"));
  v.key("waits_for_room", s.waits_for_room, about("seconds, sum over its threads"));
  v.key("cpu", s.cpu, about("CPU seconds, sum over its threads"));
};

inline constexpr auto rehearsal_memory_fields = [](auto& v, auto& m) {
  v.key("index", m.index, about("bytes: where the records lie"));
  v.key("read_buffers", m.read_buffers, about("bytes, the most"));
  v.key("batches", m.batches, about("bytes, the most"));
  v.key("decoding", m.decoding, about("bytes, the most: decoders and threads"));
  v.key("needed", m.needed, about("bytes of the whole process, told before the start"));
  v.key("peak", m.peak, about("anonymous bytes of the process, the most"));
  v.key("page_cache", m.page_cache, about("bytes of the control group; null without one"));
  v.key("group_peak", m.group_peak, about("bytes of everything in the control group"));
  v.key("limit", m.limit, about("bytes, the least that binds"));
};

inline constexpr auto rehearsal_fault_fields = [](auto& v, auto& f) {
  v.key("kind", f.kind, about("of fault"));
  v.key("count", f.count, about("records, each time they were met"));
  v.key("first", f.first, about("the first few, by name"));
};

inline constexpr auto rehearsal_planned_fields = [](auto& v, auto& p) {
  v.key("samples", p.samples, about("per second and node"));
  v.key("utilization", p.utilization, about("of the accelerators"));
  v.key("step", p.step, about("seconds, without waiting for data"));
  v.key("limited_by", p.limited_by, about("a stage; empty: never short"));
  v.key("workers_enough", p.workers_enough, about("fewest per GPU that starve none"));
  v.key("supply", p.supply, about("samples per second, were nothing to wait for accelerators"));
  v.key("index", p.index, about("bytes"));
  v.key("read_buffers", p.read_buffers, about("bytes"));
  v.key("batches", p.batches, about("bytes"));
  v.key("decoding", p.decoding, about("bytes: decoders and threads"));
  v.key("peak", p.peak, about("bytes of the whole process"));
  v.key("machine", p.machine, about("whose figures these are"));
  v.key("job_ram", p.job_ram, about("bytes of a node for the job with its own loader"));
  v.key("job_supply", p.job_supply, about("samples per second and node of the job's own loader"));
};

inline constexpr auto rehearsal_try_fields = [](auto& v, auto& t) {
  v.key("workers", t.workers, about("decoding threads"));
  v.key("prefetch", t.prefetch, about("batches ahead per accelerator"));
  v.key("depth", t.depth, about("most read requests under way"));
  v.key("utilization", t.utilization, about("of the least used accelerator"));
  v.key("needed", t.needed, about("bytes of memory"));
  v.key("enough", t.enough, about("the target was reached"));
};

inline constexpr auto rehearsal_tuning_fields = [](auto& v, auto& t) {
  v.key("target", t.target, about("utilization asked for"));
  v.key("reached", t.reached, about("by the settings above"));
  v.list("tries", t.tries, rehearsal_try_fields, about("in their order"));
};

inline constexpr auto rehearsal_rank_fields = [](auto& v, auto& r) {
  v.key("rank", r.rank, about("from 0"));
  v.key("host", r.host, about("its name"));
  v.key("accelerators", r.accelerators, about("of this process"));
  v.key("alone", r.alone, about("accelerators used, if it waited for its own data only"));
  v.key("waits_for_data", r.waits_for_data, about("seconds, its own, without the first step"));
  v.key("waits_for_others", r.waits_for_others, about("seconds, with its own data there"));
  v.key("last", r.last, about("steps for which all waited for it"));
  v.key("needed", r.needed, about("bytes of the process, told before the start"));
  v.key("peak", r.peak, about("anonymous bytes of the process, the most"));
};

inline constexpr auto rehearsal_crew_fields = [](auto& v, auto& c) {
  v.key("hosts", c.hosts, about("that the processes ran on"));
  v.key("steps", c.steps, about("of each process, taken together"));
  v.key("slowest", c.slowest, about("rank whose own data came latest in sum; null: none"));
  v.list("ranks", c.ranks, rehearsal_rank_fields, about("the processes"));
};

inline constexpr auto rehearsal_device_fields = [](auto& v, auto& d) {
  v.key("accelerator", d.accelerator, about("from 0, through all processes"));
  v.key("name", d.name, about("as the driver says"));
  v.key("pci", d.pci, about("address"));
  v.key("numa_node", d.numa_node, about("that it is near to; null: unknown"));
  v.key("copies", d.copies, about("of batches"));
  v.key("bytes", d.bytes, about("copied to it"));
  v.key("copying", d.copying, about("seconds by its own clock, sum over the copies"));
  v.key("rate", d.rate, about("bytes per second while it copied; null: no copy"));
};

inline constexpr auto rehearsal_node_fields = [](auto& v, auto& n) {
  v.key("node", n.node, about("number of the NUMA node"));
  v.key("local", n.local, about("bytes given here to threads that ran here"));
  v.key("remote", n.remote, about("bytes given here to threads that ran elsewhere"));
  v.key("missed", n.missed, about("bytes given elsewhere although this node was preferred"));
};

inline constexpr auto rehearsal_fields = [](auto& v, auto& r) {
  v.constant("schema", kRehearsalSchema);
  v.table("setting", r.setting, rehearsal_setting_fields, about("what was run"));
  v.key("end", r.end, about("what ended it"));
  v.key("elapsed", r.elapsed, about("seconds"));
  v.key("samples", r.samples, about("that reached accelerators"));
  v.key("epochs", r.epochs, about("times the data set was read"));
  v.key("rate", r.rate, about("samples per second after each accelerator's first step"));
  v.key("read_rate", r.read_rate, about("bytes per second of records"));
  v.key("utilization_mean", r.utilization_mean, about("MLPerf Storage's; null without steps"));
  v.key("utilization_least", r.utilization_least, about("of the least used accelerator"));
  v.key("limited_by", r.limited_by, about("a stage; empty: accelerators are never short"));
  v.list("stages", r.stages, rehearsal_stage_fields, about("in the order of the data path"));
  v.table("memory", r.memory, rehearsal_memory_fields, about("of the host"));
  v.list("faults", r.faults, rehearsal_fault_fields, about("by kind"));
  v.key("notes", r.notes, about("what else to know"));
  v.optional_table("planned", r.planned, rehearsal_planned_fields, about("null without a job"));
  v.optional_table("tuning", r.tuning, rehearsal_tuning_fields, about("null without --tune"));
  v.optional_table("crew", r.crew, rehearsal_crew_fields, about("null for a process alone"));
  v.list("devices", r.devices, rehearsal_device_fields, about("real accelerators; empty: paced"));
  v.list("nodes", r.nodes, rehearsal_node_fields, about("memory the kernel gave, whole machine"));
};

}  // namespace steelyard::codec
