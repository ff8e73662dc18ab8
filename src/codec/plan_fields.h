// Every key of the plan (schema steelyard.plan/1, the table in job-format.md), once: the same table
// writes the plan and describes it as a JSON Schema. Sizes in bytes, times in seconds, rates per
// second, nothing rounded; what is unknown is null, never 0 and never missing.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "codec/codec.h"
#include "codec/leaf.h"
#include "codec/rule.h"
#include "facts/process_memory.h"

namespace steelyard::codec {

inline constexpr const char* kPlanSchema = "steelyard.plan/1";

// The keys that an advice sets, as --set would take them: a table of texts.
using SetKeys = std::vector<std::pair<std::string, std::string>>;
template <>
struct Leaf<SetKeys> {
  static facts::Value write(const SetKeys& set) {
    facts::Object table;
    for (const auto& [key, value] : set) table.emplace_back(key, value);
    return table;
  }
  static facts::Value schema(const Rule&) {
    return facts::Object{{"type", "object"},
                         {"additionalProperties", facts::Object{{"type", "string"}}}};
  }
};

// True and false only when it is certain: an unknown capacity leaves the verdict open.
[[nodiscard]] std::optional<bool> certain_fit(const facts::Plan& plan);

[[nodiscard]] facts::Value schema_of_resolved_job();  // schema.cpp

// Bytes by category, a key for each.
template <class Category>
inline constexpr auto by_category_fields = [](auto& v, auto& bytes) {
  for (std::size_t i = 0; i < facts::EnumNames<Category>::values.size(); ++i) {
    v.key(facts::EnumNames<Category>::values[i], bytes[static_cast<Category>(i)], about("bytes"));
  }
};
inline constexpr auto vram_bytes_fields = by_category_fields<facts::VramCategory>;
inline constexpr auto ram_bytes_fields = by_category_fields<facts::RamCategory>;

inline constexpr auto flops_fields = [](auto& v, auto& m) {
  v.key("forward", m.forward_flops_per_sample, about("FLOP"));
  v.key("backward", m.backward_flops_per_sample, about("FLOP, recomputation not counted"));
};

inline constexpr auto model_plan_fields = [](auto& v, auto& m) {
  v.key("name", m.name, about("catalogue id, file name or \"inline\""));
  v.key("type", m.type, about("the configuration's model_type"));
  v.key("parameters", m.parameters, about("all"));
  v.key("trainable_parameters", m.trainable_parameters, about("those that get a gradient"));
  v.key("active_parameters", m.active_parameters, about("used by one token"));
  v.table("flops_per_sample", m, flops_fields, about("arithmetic of one sample"));
};

inline constexpr auto peak_at_fields = [](auto& v, auto& p) {
  v.key("phase", p.phase, about("forward, backward, optimizer, ..."));
  v.key("layer", p.layer, about("empty outside of layers"));
  v.key("operator", p.operation, about("what ran at the peak"));
};

inline constexpr auto device_fields = [](auto& v, auto& r) {
  v.key("reserved", r.peak_reserved, about("bytes of the caching allocator"));
  v.key("context", r.context, about("bytes of the CUDA context and loaded kernels"));
  v.key("collectives", r.collectives, about("bytes of NCCL's buffers"));
  v.key("communicators", r.communicators, about("how many have buffers"));
  v.key("source", r.device_source, about("of the figures outside of the allocator"));
};

inline constexpr auto memory_fields = [](auto& v, auto& r) {
  v.key("peak_allocated", r.peak_allocated, about("bytes in tensors"));
  v.key("peak_reserved", r.peak_reserved, about("bytes that the caching allocator holds"));
  v.key("peak_device_used", r.peak_device_used, about("bytes that nvidia-smi shows"));
  v.table("device", r, device_fields, about("what device-used memory is made of"));
  v.key("steady_allocated", r.steady_allocated, about("bytes in tensors between steps"));
  v.table("by_category", r.by_category, vram_bytes_fields, about("at the peak"));
  v.table("peak_at", r.peak_at, peak_at_fields, about("where the peak is"));
};

inline constexpr auto rank_fields = [](auto& v, auto& r) {
  v.key("kind", r.kind, about("what these ranks do"));
  v.key("ranks", r.ranks, about("how many there are"));
  memory_fields(v, r);
};

inline constexpr auto moment_fields = [](auto& v, auto& m) {
  v.key("phase", m.phase, about("forward, backward, optimizer, ..."));
  v.key("layer", m.layer, about("empty outside of layers"));
  v.key("operator", m.operation, about("what was allocated at its fullest"));
  v.table("live", m.live, vram_bytes_fields, about("bytes by category"));
};

inline constexpr auto vram_fields = [](auto& v, auto& plan) {
  v.key("capacity", plan.vram.capacity.value, about("bytes of one card"));
  v.key("fits", plan.fits_vram, about("null when the capacity is unknown"));
  memory_fields(v, plan.vram.fullest);
  v.list("ranks", plan.vram.ranks, rank_fields, about("each distinct kind of rank"));
  v.optional_list("timeline", plan.vram.timeline, moment_fields, about("with --timeline"));
};

inline constexpr auto phases_fields = [](auto& v, auto& phases) {
  for (std::size_t i = 0; i < facts::kRamPhases; ++i) {
    v.table(facts::EnumNames<facts::RamPhase>::values[i], phases[i], ram_bytes_fields,
            about("bytes by category"));
  }
};

inline constexpr auto ram_rule_fields = [](auto& v, auto& rule) {
  v.key("rule", rule.sentence, about("with its figures"));
  v.key("origin", rule.from, about("how it is known"));
  v.key("source", rule.source, about("software, report or recording"));
};

inline constexpr auto ram_fields = [](auto& v, auto& plan) {
  v.key("capacity", plan.ram.capacity.value, about("bytes of a node"));
  v.key("fits", plan.fits_ram, about("null when the capacity is unknown"));
  v.key("peak", plan.ram.peak, about("bytes of a node"));
  v.key("peak_phase", plan.ram.peak_phase, about("when the peak is"));
  v.table("phases", plan.ram.phases, phases_fields, about("of a node"));
  const facts::ProcessMemory process = facts::fullest_process(plan);
  v.key("process_peak", process.peak, about("bytes of the fullest process"));
  v.key("process_peak_phase", process.peak_phase, about("when that peak is"));
  v.table("process_phases", process.phases, phases_fields, about("of the fullest process"));
  v.key("page_cache_wanted", plan.ram.page_cache_wanted,
        about("bytes the page cache could use, beyond the peak"));
  v.list("rules", plan.ram.rules, ram_rule_fields, about("rules and assumptions used"));
};

// Seconds of a step by what they go to; all unknown when the step is.
inline constexpr auto breakdown_fields = [](auto& v, auto& pace) {
  const auto part = [&](const char* name, Seconds seconds) {
    std::optional<Seconds> known;
    if (pace.step) known = seconds;
    v.key(name, known, about("seconds"));
  };
  part("compute", pace.breakdown.compute);
  part("memory_bound", pace.breakdown.memory_bound);
  part("exposed_communication", pace.breakdown.exposed_communication);
  part("bubble", pace.breakdown.bubble);
  part("optimizer", pace.breakdown.optimizer);
  part("offload", pace.breakdown.offload);
  part("data_stall", pace.breakdown.data_stall);
  part("checkpoint", pace.breakdown.checkpoint);
};

inline constexpr auto pace_fields = [](auto& v, auto& p) {
  v.key("step", p.step, about("seconds of an optimizer step"));
  v.key("samples", p.samples, about("per second, whole job"));
  v.key("tokens", p.tokens, about("per second, whole job; text only"));
  v.key("tokens_per_gpu", p.tokens_per_gpu, about("per second and GPU; text only"));
  v.key("mfu", p.mfu, about("model FLOP utilization"));
  v.key("hfu", p.hfu, about("hardware FLOP utilization, recomputation counted"));
  v.key("model_flops_per_gpu", p.model_flops_per_gpu, about("FLOP per second and GPU"));
  v.table("breakdown", p, breakdown_fields, about("parts that sum to the step"));
  v.key("missing", p.missing, about("figures of the machine that were needed and are unknown"));
  v.key("assumptions", p.assumptions, about("rules and assumptions used"));
};

inline constexpr auto stage_fields = [](auto& v, auto& s) {
  v.key("name", s.name, about("storage, read, decode, assemble or host-to-device"));
  v.key("can", s.can, about("samples per second that it can do, after the first epoch"));
  v.key("can_at_first", s.can_at_first, about("the same while caches fill"));
  v.key("needed", s.needed, about("samples per second that the GPUs ask for"));
  v.key("ram", s.ram, about("bytes it holds, per node"));
  v.key("note", s.note, about("how `can` is known"));
};

inline constexpr auto flow_fields = [](auto& v, auto& f) {
  v.key("supply", f.supply, about("samples per second for GPUs that take all, per node"));
  v.key("gpu_wait_fraction", f.gpu_wait_fraction, about("of a step"));
  v.key("accelerator_utilization", f.accelerator_utilization, about("as MLPerf Storage has it"));
  std::optional<std::string> limit;
  if (!f.limited_by.empty()) limit = f.limited_by;
  v.key("limited_by", limit, about("the slowest stage; null when the GPUs never wait"));
};

inline constexpr auto numa_fields = [](auto& v, auto& n) {
  v.key("socket_of_rank", n.socket_of_rank, about("of a node; empty with one socket"));
  v.key("bound", n.bound, about("ranks and their loaders stay on that socket"));
  v.key("link", n.link, about("bytes per second between sockets, one way"));
  v.key("crosses", n.crosses, about("bytes per second of the data path, one way"));
  v.key("crosses_bound", n.crosses_bound, about("the same with every rank bound"));
  v.key("note", n.note, about("how they are known"));
};

inline constexpr auto node_load_fields = [](auto& v, auto& n) {
  v.key("node", n.node, about("as the kernel counts"));
  v.key("socket", n.socket, about("it belongs to"));
  v.key("memory", n.memory.value, about("bytes"));
  v.key("cores", n.cores.value, about("physical"));
  v.key("cpus", n.cpus, about("hardware threads; empty: unknown"));
  v.key("ranks", n.ranks, about("of one host, whose GPUs hang there"));
  v.key("nics", n.nics, about("network interfaces on its lanes"));
  v.key("drives", n.drives, about("on its lanes"));
  v.key("need", n.need, about("bytes in its fullest phase, when ranks are bound"));
  v.key("need_phase", n.need_phase, about("when that is"));
  v.key("fits", n.fits, about("null when its memory is unknown"));
};

inline constexpr auto rank_place_fields = [](auto& v, auto& r) {
  v.key("rank", r.rank, about("of one host, and its GPU"));
  v.key("node", r.node, about("its GPU hangs on"));
  v.key("socket", r.socket, about("of that node"));
  v.key("nic", r.nic, about("nearest; empty: unknown"));
  v.key("nic_near", r.nic_near, about("on the same socket"));
  v.key("strict", r.strict, about("its memory can be kept from other nodes"));
  v.key("numactl", r.numactl, about("what binds it, memory included"));
  v.key("taskset", r.taskset, about("what binds its threads; empty: they are unknown"));
};

inline constexpr auto placement_fields = [](auto& v, auto& p) {
  v.key("assumed", p.assumed, about("where GPUs hang is not known: in order, in equal parts"));
  v.key("note", p.note, about("how they are known"));
  v.list("nodes", p.nodes, node_load_fields, about("of one host; empty with one node"));
  v.list("ranks", p.ranks, rank_place_fields, about("of one host"));
  v.key("crossing_bytes", p.crossing_bytes, about("one way between sockets, of a step"));
  v.key("crossing_bytes_bound", p.crossing_bytes_bound, about("the same with every rank bound"));
  v.key("crossing", p.crossing, about("seconds of that link, of a step"));
  v.key("crossing_bound", p.crossing_bound, about("the same with every rank bound"));
  v.key("remarks", p.remarks, about("what to look after"));
};

inline constexpr auto feed_fields = [](auto& v, auto& f) {
  v.list("stages", f.stages, stage_fields, about("the data path in its order"));
  flow_fields(v, f);
  v.table("first_epoch", f.first_epoch, flow_fields, about("the same while caches fill"));
  v.key("workers_enough", f.workers_enough, about("fewest per rank; null when no number is"));
  v.key("prefetch_enough", f.prefetch_enough, about("least batches ahead that lose nothing"));
  v.key("spread_loss", f.spread_loss, about("of the supply, because samples differ"));
  v.table("numa", f.numa, numa_fields, about("what goes from socket to socket"));
};

inline constexpr auto thumb_fields = [](auto& v, auto& b) {
  v.key("low", b.rule_low, about("RAM : VRAM"));
  v.key("high", b.rule_high, about("RAM : VRAM"));
  v.key("open_ended", b.rule_open_ended, about("high, and more"));
};

inline constexpr auto advice_fields = [](auto& v, auto& a) {
  v.key("sentence", a.sentence, about("what to change and why"));
  v.key("set", a.set, about("keys and values, as for --set"));
  v.key("fits", a.fits, about("the changed job fits"));
  v.key("vram_peak", a.vram_peak, about("bytes of the fullest rank, after the change"));
  v.key("ram_peak", a.ram_peak, about("bytes of a node, after the change"));
  v.key("step", a.step, about("seconds, after the change"));
  v.key("cost_per_hour", a.cost_per_hour, about("after the change"));
  v.key("cost_per_million_samples", a.cost_per_million_samples, about("after the change"));
  v.key("gain", a.gain, about("samples per second, or per money where both have a price"));
  v.key("effort", a.effort, about("what the change asks for"));
};

inline constexpr auto balance_fields = [](auto& v, auto& b) {
  v.key("ratio_needed", b.ratio_needed,
        about("RAM at the fullest phase over the VRAM of the cards that the job uses"));
  v.key("ratio_installed", b.ratio_installed, about("RAM over VRAM of the whole machine"));
  v.key("tier", b.tier, about("size class of the job, by what it is and not by the machine"));
  v.key(
      "whole_job", b.whole_job,
      about("one whole copy of the states, and what a GPU's passes hold beside: decides the tier"));
  v.key("data_heavy", b.data_heavy,
        about("its data could fill more memory than that, or need a storage's full rate"));
  v.table("rule_of_thumb", b, thumb_fields, about("of the tier"));
  v.key("verdict", b.verdicts, about("one or several"));
  v.key("sentences", b.sentences, about("one per verdict"));
  v.list("advice", b.advice, advice_fields, about("ordered, each really planned"));
};

inline constexpr auto cost_fields = [](auto& v, auto& c) {
  v.key("per_hour", c.per_hour, about("all nodes"));
  v.key("currency", c.currency, about("of the machine's price"));
  v.key("per_million_samples", c.per_million_samples, about("at the planned pace"));
  v.key("per_million_tokens", c.per_million_tokens, about("at the planned pace; text only"));
  v.key("wasted_per_hour", c.wasted_per_hour, about("for GPUs that wait for data or idle"));
};

inline constexpr auto confidence_fields = [](auto& v, auto& c) {
  v.key("median_absolute_error", c.median_absolute_error,
        about("ratio, on the nearest measured cases"));
  v.key("p90_absolute_error", c.p90_absolute_error, about("ratio: nine of ten are within"));
  v.key("cases", c.cases, about("how many they are"));
  v.key("note", c.note, about("what they have in common with the job"));
};

inline constexpr auto confidences_fields = [](auto& v, auto& plan) {
  v.table("vram", plan.vram_confidence, confidence_fields, about("of vram"));
  v.table("ram", plan.ram_confidence, confidence_fields, about("of ram"));
  v.table("pace", plan.pace_confidence, confidence_fields, about("of pace"));
};

inline constexpr auto plan_fields = [](auto& v, auto& plan) {
  v.constant("schema", kPlanSchema);
  std::optional<bool> fits = certain_fit(plan);
  v.key("fits", fits, about("null when a capacity is unknown and nothing else is short"));
  v.made(
      "job", [&] { return to_value(plan.job); }, schema_of_resolved_job);
  v.made(
      "machine", [&] { return to_value(plan.machine); }, [] { return schema(SchemaOf::machine); });
  v.table("model", plan.model, model_plan_fields, about("what is trained"));
  v.table("vram", plan, vram_fields, about("of the fullest rank"));
  v.table("ram", plan, ram_fields, about("of a node"));
  v.table("pace", plan.pace, pace_fields, about("times and rates"));
  v.table("feed", plan.feed, feed_fields, about("the data path"));
  v.table("numa", plan.numa, placement_fields, about("which ranks belong where"));
  v.table("balance", plan.balance, balance_fields, about("the two memories beside each other"));
  v.optional_table("cost", plan.cost, cost_fields, about("null when the machine has no price"));
  v.table("confidence", plan, confidences_fields, about("how far to trust the figures"));
  v.key("warnings", plan.warnings, about("what a person should know"));
};

}  // namespace steelyard::codec
