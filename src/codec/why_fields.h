// Every key of `steelyard why JOB vram --json` (schema steelyard.why/1), once: the same table
// writes it and describes it as a JSON Schema.
#pragma once

#include "codec/plan_fields.h"

namespace steelyard::codec {

inline constexpr const char* kWhySchema = "steelyard.why/1";

inline constexpr auto tensor_group_fields = [](auto& v, auto& g) {
  v.key("operator", g.operation, about("what made them"));
  v.key("layer", g.layer, about("one layer, or the first and the last"));
  v.key("tensors", g.tensors, about("how many there are, all alike"));
  v.key("shape", g.shape, about("of each; empty when it is no tensor of one type"));
  v.key("dtype", g.dtype, about("of the elements; empty with the shape"));
  v.key("bytes", g.bytes, about("all of them, as the allocator counts"));
  v.key("category", g.category, about("as in by_category"));
  v.table("born", g.born, peak_at_fields, about("where they are allocated"));
  v.optional_table("freed", g.freed, peak_at_fields, about("null: they live as long as the job"));
};

inline constexpr auto why_fields = [](auto& v, auto& why) {
  v.constant("schema", kWhySchema);
  v.key("job", why.job, about("its name"));
  v.key("capacity", why.capacity.value, about("bytes of one card"));
  v.table("rank", why.rank, rank_fields, about("that the tensors are of"));
  v.key("kinds", why.kinds, about("of all ranks of the job"));
  v.list("tensors", why.tensors, tensor_group_fields, about("alive at the peak, largest first"));
  v.key("workspaces", why.workspaces, about("bytes allocated beside them by libraries"));
};

inline constexpr const char* kWhyPaceSchema = "steelyard.why-pace/1";

inline constexpr auto pace_row_fields = [](auto& v, auto& r) {
  v.key("phase", r.phase, about("forward, backward, optimizer ...; empty: the whole step"));
  v.key("layer", r.layer, about("group of layers that are alike; empty: none"));
  v.key("operator", r.operation, about("what runs, or what is waited for"));
  v.key("bound", r.bound, about("what limits it"));
  v.key("count", r.count, about("kernels, copies or collectives in a step"));
  v.key("busy", r.busy, about("seconds that they run, also beside something else"));
  v.key("step", r.step, about("seconds that the step is longer for; these sum to the step"));
  v.key("recomputed", r.recomputed, about("done again for the backward pass"));
};

inline constexpr auto pace_help_fields = [](auto& v, auto& h) {
  v.key("what", h.what, about("what would shorten the step"));
  v.key("at_most", h.at_most, about("seconds of a step"));
};

inline constexpr auto pace_why_fields = [](auto& v, auto& why) {
  v.constant("schema", kWhyPaceSchema);
  v.key("job", why.job, about("its name"));
  v.table("pace", why.pace, pace_fields, about("as in the plan"));
  v.list("rows", why.rows, pace_row_fields, about("of the busiest rank, longest first"));
  v.list("helps", why.helps, pace_help_fields, about("largest first"));
};

}  // namespace steelyard::codec
