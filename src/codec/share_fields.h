// Every key of `steelyard share --json` (schema steelyard.share/1), once: the same tables write
// them and describe them.
#pragma once

#include "codec/leaf.h"
#include "codec/rule.h"
#include "facts/share.h"

namespace steelyard::codec {

inline constexpr const char* kShareSchema = "steelyard.share/1";

inline constexpr auto shared_part_fields = [](auto& v, auto& part) {
  v.key("resource", part.resource, about("that does not suffice for all"));
  v.key("wanted", part.wanted, about("to be as fast as alone: bytes, bytes/s, cores, share"));
  v.key("given", part.given, about("what is left for it, in the same unit"));
  v.key("slower", part.slower, about("the step with only this part less, over the step alone"));
};

inline constexpr auto alone_fields = [](auto& v, auto& plan) {
  v.key("vram_peak", plan.vram.fullest.peak_device_used, about("bytes, of the fullest rank"));
  v.key("vram_capacity", plan.vram.capacity.value, about("bytes of one card"));
  v.key("ram_peak", plan.ram.peak, about("bytes, the operating system included"));
  v.key("page_cache_wanted", plan.ram.page_cache_wanted, about("bytes"));
  v.key("samples", plan.pace.samples, about("per second"));
  v.key("tokens", plan.pace.tokens, about("per second; text only"));
};

inline constexpr auto placed_job_fields = [](auto& v, auto& job) {
  v.key("name", job.name, about("of the job"));
  v.key("file", job.file, about("jobs of one file read the same dataset"));
  v.key("copy", job.copy, about("from 1"));
  v.key("gpus", job.gpus, about("that it asks for"));
  v.key("refused", job.refused, about("why it cannot run on this machine; empty: it can"));
  v.key("seat", job.seat, about("how it has its GPUs"));
  v.key("profile", job.profile, about("of its MIG instance; empty: none"));
  v.key("on", job.on, about("GPU numbers; empty: it has to move"));
  v.key("sockets", job.sockets, about("of those GPUs"));
  v.key("step_alone", job.step_alone, about("seconds, with the machine to itself"));
  v.key("step_together", job.step_together, about("seconds, beside the others"));
  v.list("parts", job.parts, shared_part_fields, about("what it gets less of than it wants"));
  v.optional_table("alone", job.alone, alone_fields, about("its plan; null where refused"));
};

inline constexpr auto shared_ram_fields = [](auto& v, auto& ram) {
  v.key("capacity", ram.capacity.value, about("bytes of the host"));
  for (std::size_t i = 0; i < facts::kRamPhases; ++i) {
    v.key(facts::EnumNames<facts::RamPhase>::values[i], ram.phases[i],
          about("bytes, every job in that phase at the same moment"));
  }
  v.key("worst", ram.worst, about("bytes, every job at its own fullest moment"));
  v.key("one_by_one", ram.one_by_one, about("bytes, one at its fullest moment, the others steady"));
  v.key("page_cache_wanted", ram.page_cache_wanted, about("bytes of model files and datasets"));
  v.key("page_cache_left", ram.page_cache_left, about("bytes; null: the capacity is unknown"));
};

inline constexpr auto shared_sum_fields = [](auto& v, auto& sum) {
  v.key("resource", sum.resource, about("of the machine"));
  v.key("name", sum.name, about("which of them"));
  v.key("capacity", sum.capacity, about("bytes/s or cores"));
  v.key("wanted", sum.wanted, about("by all jobs, each to be as fast as alone"));
};

inline constexpr auto share_fields = [](auto& v, auto& plan) {
  v.constant("schema", kShareSchema);
  v.key("machine", plan.machine, about("catalogue id or name"));
  v.key("gpus", plan.gpus, about("of the machine"));
  v.key("socket_of_gpu", plan.socket_of_gpu, about("for each GPU"));
  v.key("verdict", plan.verdict,
        about("one_by_one: if never two of them start or save at the same moment"));
  v.key("sentences", plan.sentences, about("why it is not `fits`"));
  v.list("jobs", plan.jobs, placed_job_fields, about("in the order given, copy by copy"));
  v.table("ram", plan.ram, shared_ram_fields, about("host memory of all of them"));
  v.list("sums", plan.sums, shared_sum_fields, about("what the machine has and all want of it"));
  v.key("move", plan.move, about("indices of the smallest jobs without which the rest fits"));
  v.key("exact", plan.exact, about("no better placement exists"));
};

}  // namespace steelyard::codec
