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

}  // namespace steelyard::codec
