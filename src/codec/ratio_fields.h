// Every key of `steelyard ratio --json` (schema steelyard.ratio/1), once: the same tables write
// them and describe them.
#pragma once

#include "codec/leaf.h"
#include "codec/rule.h"
#include "facts/ratio.h"

namespace steelyard::codec {

inline constexpr const char* kRatioSchema = "steelyard.ratio/1";

inline constexpr auto rule_of_thumb_fields = [](auto& v, auto& rule) {
  v.key("low", rule.low, about("RAM per VRAM of the card"));
  v.key("high", rule.high, about("RAM per VRAM of the card"));
  v.key("open_ended", rule.open_ended, about("the rule says \"and more\""));
};

inline constexpr auto mixed_job_fields = [](auto& v, auto& job) {
  v.key("name", job.name, about("of the job"));
  v.key("weight", job.weight, about("its share of the mix, any unit"));
  v.key("gpus", job.gpus, about("of a node"));
  v.key("nodes", job.nodes, about("that it asks for"));
};

inline constexpr auto ratio_cell_fields = [](auto& v, auto& cell) {
  v.key("refused", cell.refused, about("why the job cannot be planned there; empty: it can"));
  v.key("fits", cell.fits, about("the card's memory suffices"));
  v.key("vram_peak", cell.vram_peak, about("bytes, of the fullest rank"));
  v.key("ram_per_gpu", cell.ram_per_gpu, about("bytes at the fullest phase, system included"));
  v.key("page_cache_per_gpu", cell.page_cache_per_gpu,
        about("bytes more that would keep model file and dataset in memory"));
};

inline constexpr auto gpu_ratio_fields = [](auto& v, auto& line) {
  v.key("gpu", line.gpu, about("catalogue id"));
  v.key("vram", line.vram, about("bytes of one card"));
  v.key("fitting", line.fitting, about("share of the mix that fits, by weight"));
  v.key("ram_most", line.ram_most, about("bytes per GPU, of the job that needs most"));
  v.key("ram_mean", line.ram_mean, about("bytes per GPU, mean over the jobs that fit by weight"));
  v.key("with_page_cache", line.with_page_cache, about("bytes per GPU, page cache included"));
  v.key("ratio_most", line.ratio_most, about("ram_most over vram"));
  v.key("ratio_mean", line.ratio_mean, about("ram_mean over vram"));
  v.table("rule", line.rule, rule_of_thumb_fields, about("of thumb, beside the computed need"));
  v.list("jobs", line.cells, ratio_cell_fields, about("in the order of the mix"));
};

inline constexpr auto machine_ratio_fields = [](auto& v, auto& line) {
  v.key("machine", line.machine, about("catalogue id"));
  v.key("gpu", line.gpu, about("catalogue id"));
  v.key("gpus", line.gpus, about("of one node"));
  v.key("verdict", line.verdict, about("what its memories are for the whole mix"));
  v.key("why", line.why, about("the job that needs most, or what is short"));
  v.key("ram_per_gpu", line.ram_per_gpu, about("bytes installed"));
  v.key("needed", line.needed, about("bytes per GPU, the node filled with the neediest job"));
  v.key("with_page_cache", line.with_page_cache, about("bytes per GPU, page cache included"));
  v.key("ratio_installed", line.ratio_installed, about("RAM over VRAM of the whole machine"));
  v.key("ratio_needed", line.ratio_needed, about("needed over the VRAM of the card"));
  v.key("price_per_gpu_hour", line.price_per_gpu_hour, about("null when it has no price"));
  v.key("currency", line.currency, about("of the price"));
};

inline constexpr auto mix_ratio_fields = [](auto& v, auto& mix) {
  v.constant("schema", kRatioSchema);
  v.key("mix", mix.mix, about("the tier's name, or that the jobs were given"));
  v.key("about", mix.about, about("what the tier stands for"));
  v.optional_table("rule", mix.rule, rule_of_thumb_fields,
                   about("of the tier; null: each card's own"));
  v.list("jobs", mix.jobs, mixed_job_fields, about("the mix"));
  v.list("gpus", mix.gpus, gpu_ratio_fields, about("kinds of GPU, smallest card first"));
  v.list("machines", mix.machines, machine_ratio_fields,
         about("of the catalogue; what is enough first, each by price"));
};

}  // namespace steelyard::codec
