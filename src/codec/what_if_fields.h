// Every key of `steelyard compare --json` (schema steelyard.comparison/1) and `steelyard limits
// --json` (steelyard.limits/1), once: the same tables write them and describe them.
#pragma once

#include "codec/plan_fields.h"
#include "facts/what_if.h"

namespace steelyard::codec {

inline constexpr const char* kComparisonSchema = "steelyard.comparison/1";
inline constexpr const char* kLimitsSchema = "steelyard.limits/1";

// What of a plan a comparison shows; the plan itself is `steelyard plan`'s.
inline constexpr auto planned_machine_fields = [](auto& v, auto& plan) {
  v.key("nodes", plan.job.machine.nodes, about("that the GPUs fill"));
  v.key("gpus_per_node", plan.job.machine.gpus, about("used of each"));
  v.key("gpu", plan.machine.gpu.id, about("catalogue id"));
  v.made(
      "fits", [&] { return Leaf<std::optional<bool>>::write(certain_fit(plan)); },
      [] { return nullable(Leaf<std::optional<bool>>::schema({})); });
  v.key("vram_peak", plan.vram.fullest.peak_device_used, about("bytes, of the fullest rank"));
  v.key("vram_capacity", plan.vram.capacity.value, about("bytes of one card"));
  v.key("ram_peak", plan.ram.peak, about("bytes of a node"));
  v.key("ram_capacity", plan.ram.capacity.value, about("bytes of a node"));
  v.key("step", plan.pace.step, about("seconds of an optimizer step"));
  v.key("samples", plan.pace.samples, about("per second, whole job"));
  v.key("tokens", plan.pace.tokens, about("per second, whole job; text only"));
  v.key("mfu", plan.pace.mfu, about("model FLOP utilization"));
  v.key("ratio_needed", plan.balance.ratio_needed,
        about("RAM at the fullest phase over the VRAM of the cards that the job uses"));
  v.key("ratio_installed", plan.balance.ratio_installed,
        about("RAM over VRAM of the whole machine"));
  v.key("verdict", plan.balance.verdicts, about("one or several"));
  v.optional_table("cost", plan.cost, cost_fields, about("null when the machine has no price"));
};

inline constexpr auto compared_machine_fields = [](auto& v, auto& line) {
  v.key("machine", line.machine, about("as it was named"));
  v.key("refused", line.refused, about("why the job cannot be planned there; empty: it can"));
  v.optional_table("plan", line.plan, planned_machine_fields, about("null where refused"));
};

inline constexpr auto machines_compared_fields = [](auto& v, auto& c) {
  v.constant("schema", kComparisonSchema);
  v.key("job", c.job, about("its name"));
  v.key("gpus", c.gpus, about("the same number on every machine"));
  v.list("machines", c.machines, compared_machine_fields, about("in the order given"));
};

inline constexpr auto limit_fields = [](auto& v, auto& l) {
  v.key("key", l.key, about("of the job file"));
  v.key("what", l.what, about("what it counts"));
  v.key("sense", l.sense, about("largest or least"));
  v.key("now", l.now, about("as the job has it"));
  v.key("step", l.step, about("values between its multiples were not tried"));
  v.key("limit", l.limit, about("null: nothing that was tried fits"));
  v.key("beyond", l.beyond, about("the search ended there, nothing broke"));
  v.key("breaks", l.breaks, about("what happens one step further"));
};

inline constexpr auto limits_fields = [](auto& v, auto& l) {
  v.constant("schema", kLimitsSchema);
  v.key("job", l.job, about("its name"));
  v.key("fits", l.fits, about("as it is"));
  v.list("limits", l.limits, limit_fields, about("each with everything else left as it is"));
};

inline constexpr const char* kSearchSchema = "steelyard.search/1";

inline constexpr auto found_layout_fields = [](auto& v, auto& layout) {
  v.key("set", layout.set, about("keys and values, as for --set"));
  v.key("on_front", layout.on_front,
        about("nothing is better in step, cost, GPUs and RAM at once"));
  v.key("cost_per_step", layout.cost_per_step, about("null when the machine has no price"));
  v.key("joules_per_step", layout.joules_per_step,
        about("of the GPUs at their rated power; null when that is unknown"));
  v.key("step_needs", layout.plan.pace.missing,
        about("figures of the machine without which the step is unknown"));
  v.table("plan", layout.plan, planned_machine_fields, about("planned in full"));
};

inline constexpr auto lost_layout_fields = [](auto& v, auto& layout) {
  v.key("set", layout.set, about("keys and values, as for --set"));
  v.key("step", layout.step, about("seconds"));
  v.key("why", layout.why, about("it is not the best one"));
};

inline constexpr auto searched_place_fields = [](auto& v, auto& place) {
  v.key("machine", place.machine, about("catalogue id, file or GPU"));
  v.key("nodes", place.nodes, about("of it"));
  v.key("gpus_per_node", place.gpus, about("used of each"));
  v.key("refused", place.refused, about("why the job cannot go there at all; empty: it can"));
  v.key("layouts", place.layouts, about("legal ones: planned, or ruled out by a bound"));
  v.key("ruled_out", place.ruled_out, about("of the legal ones, by bounds; the rest was planned"));
  v.key("illegal", place.illegal, about("refused by the planner"));
  v.list("found", place.found, found_layout_fields,
         about("the fastest that fits, then those that need less RAM"));
  v.list("lost", place.lost, lost_layout_fields, about("faster ones that do not fit, slower ones"));
  v.key("finished", place.finished, about("false: stopped before the search was through here"));
  v.key("outside", place.outside,
        about("why no layout that fits is within what was asked for; empty: not so"));
  v.key("change", place.change,
        about("where nothing fits: what makes a layout fit, of other keys; empty: none known"));
  v.key("change_set", place.change_set, about("all that such a layout sets, as for --set"));
};

inline constexpr auto excluded_place_fields = [](auto& v, auto& place) {
  v.key("machine", place.machine, about("catalogue id, file or GPU"));
  v.key("nodes", place.nodes, about("of it"));
  v.key("gpus_per_node", place.gpus, about("that would be used of each"));
  v.key("why", place.why, about("it was not searched"));
};

inline constexpr auto search_fields = [](auto& v, auto& s) {
  v.constant("schema", kSearchSchema);
  v.key("job", s.job, about("its name"));
  v.key("goal", s.goal, about("that orders the places"));
  v.key("global_batch", s.global_batch, about("samples per step, the same everywhere"));
  v.key("free", s.free, about("keys that were free"));
  v.list("places", s.places, searched_place_fields,
         about("machines and numbers of nodes, best first"));
  v.list("excluded", s.excluded, excluded_place_fields, about("by --within, without a plan"));
  v.key("currencies", s.currencies, about("of the prices; none is converted into another"));
  v.key("interrupted", s.interrupted, about("the search was stopped before its end"));
};

}  // namespace steelyard::codec
