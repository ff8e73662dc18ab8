// How one weight is held: the tensors it consists of, their types, and what of it trains.
//
// Sources: bitsandbytes/functional.py (quantize_4bit: 4 bits per element, an absolute maximum per
// block of 64; with nested statistics those as one byte, with fp32 per 256 of them, an offset and
// the code table), nn/modules.py (LLM.int8: a byte and an fp32 scale per output row),
// auto_gptq/nn_modules/qlinear (int4 in int32 words; zeros and fp16 scales per group of 128
// inputs; a group index per input). docs/model/vram.md, "LoRA and QLoRA".
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/quantity.h"
#include "model/graph.h"
#include "step/layout.h"

namespace steelyard::step {

// One tensor of a weight. Statistics of a weight that bitsandbytes quantized are attributes of it,
// not parameters: no sharding cuts them.
struct Piece {
  std::int64_t numel = 0;
  facts::DType dtype = facts::DType::fp32;
  bool sharded = true;
};

[[nodiscard]] std::vector<Piece> pieces_of(const Layout& layout, const model::Weight& weight);
[[nodiscard]] Bytes held_bytes(const Layout& layout, const model::Weight& weight);  // one full copy

// Held between steps; what operators and the optimizer see of it.
[[nodiscard]] facts::DType held_type(const Layout& layout, const model::Weight& weight);
[[nodiscard]] facts::DType used_type(const Layout& layout, const model::Weight& weight);
[[nodiscard]] facts::DType gradient_type(const Layout& layout, const model::Weight& weight);
[[nodiscard]] facts::DType stepped_type(const Layout& layout, const model::Weight& weight);
[[nodiscard]] facts::DType state_type(const Layout& layout, const model::Weight& weight);

// One state of the optimizer for a tensor of `numel` elements.
// The part of a state in blocks that are statistics of its blocks, tensors of their own.
[[nodiscard]] Bytes statistics_bytes(const OptimizerLayout& optimizer, std::int64_t numel);
[[nodiscard]] Bytes state_bytes(const OptimizerLayout& optimizer, std::int64_t numel,
                                facts::DType state);

// Bytes that a sharded unit gathers for this weight: its sharded pieces in the gathered type.
[[nodiscard]] Bytes gathered_bytes(const Layout& layout, const model::Weight& weight);

// Of this weight, where others have `shards` (a member of the layout).
[[nodiscard]] inline std::int64_t shards_of(const Layout& layout, const model::Weight& weight,
                                            std::int64_t shards) {
  return weight.expert ? std::min(shards, layout.expert_replicas) : shards;
}

// Has storage of its own and is trained; what never gets a gradient is passed over.
[[nodiscard]] inline bool steps(const model::Weight& weight) {
  return weight.trains && !weight.unread && weight.tied_to.empty();
}
// Its gradient is reduced: not that of an embedding table of one rank alone.
[[nodiscard]] bool is_reduced(const model::Weight& weight);
// Without embedding tables of one rank alone: nobody else sums or shards their gradients.
[[nodiscard]] std::int64_t trained_elements(const model::Block& block);
[[nodiscard]] std::int64_t trained_elements(const model::Graph& graph);

}  // namespace steelyard::step
