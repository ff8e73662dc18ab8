// Tensors that one block makes and all layers read: rotary tables, the causal mask. They live until
// the model's forward() returns, and on as long as a layer's backward pass still reads them: the
// first layer's is the last.
#include <algorithm>
#include <utility>

#include "step/assembler.h"

namespace steelyard::step {

namespace {

using facts::VramCategory;

bool releases(const Event& event, std::int32_t slot) {
  return event.kind == EventKind::release_shared && event.index == slot;
}

void forget(std::vector<Event>& events, std::int32_t slot) {
  std::erase_if(events, [slot](const Event& event) { return releases(event, slot); });
}

// The first attention that reads a causal mask.
const model::Operator* causal_attention(const model::Graph& graph) {
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      for (const model::Operator& op : block.operators) {
        if (op.kind == model::OperatorKind::attention && op.attention.causal &&
            !op.attention.learned_bias) {
          return &op;
        }
      }
    }
  }
  return nullptr;
}

}  // namespace

// The model's own attention code reads a mask that the forward pass makes once for all layers:
// ones(S, S).tril().
//
// Megatron-LM's batch brings one along ([operators] attention_mask = "in_batch"; --create-
// attention-mask-in-dataloader, on by default): the first and the last stage receive [B,1,S,S] with
// their tokens, though no kernel for causal attention reads it (megatron/core/utils.py,
// get_batch_on_this_tp_rank; of a context group each rank then takes its rows,
// get_batch_on_this_cp_rank). forward_step's variable lets it go with the forward pass; what is
// recomputed is handed it as an argument, which CheckpointFunction saves (end_micro_batch).
void Assembler::make_mask(Chunk& chunk) {
  shared_.mask = Tensor();
  const auto word = profile_.operators.find("attention_mask");
  if (word != profile_.operators.end() && word->second == "in_batch") {
    const bool begins = stage_.index == 0 && chunks_.empty();
    const std::int64_t ranks = job_.parallel.context;
    const std::int64_t rows = checked_multiply(graph_.batch, graph_.sequence);
    const std::int64_t numel = checked_multiply(rows, checked_multiply(graph_.sequence, ranks));
    if (graph_.vocabulary == 0 || numel == 0 || !(begins || chunk.has_loss)) return;
    if (ranks > 1) {
      const Bytes whole = bytes_of(checked_multiply(numel, ranks), DType::boolean);
      chunk.mask_source = slot(whole, VramCategory::batch, "attention mask of the context group");
    }
    chunk.mask = slot(bytes_of(numel, DType::boolean), VramCategory::batch, "attention mask");
    program_.slots.back().shared = true;
    if (job_.train.recompute.mode == facts::RecomputeMode::none) {
      chunk.unheld.push_back(chunk.mask);
    }
    return;
  }
  const bool always = variants_.causal_mask == CausalMask::always;
  const bool read = variants_.attention == AttentionKernel::math &&
                    variants_.math_attention != MathAttention::sdpa_math;
  if (!read && !always) return;
  const model::Operator* op = causal_attention(graph_);
  if (op == nullptr) return;
  const DType dtype = op->attention.masks_by_where ? DType::boolean : layout_.used;
  const std::int64_t tokens =
      graph_.decoder_sequence > 0 ? graph_.decoder_sequence : graph_.sequence;
  const std::int64_t numel = checked_multiply(tokens, tokens);
  const Bytes bytes = bytes_of(numel, dtype);
  chunk.mask_source = slot(bytes, VramCategory::temporaries, "ones");
  chunk.mask =
      typed(slot(bytes, VramCategory::activations, "causal mask"), dtype, {tokens, tokens});
  program_.slots.back().shared = true;
  shared_.mask.storage = std::make_shared<Storage>();
  shared_.mask.storage->external = true;
  shared_.mask.storage->slot = chunk.mask;
  shared_.mask.storage->bytes = bytes;
  shared_.mask.numel = numel;
  shared_.mask.dtype = dtype;
  shared_.slots.push_back(chunk.mask);
}

void Assembler::add_mask(const Chunk& chunk, Phase& phase) {
  Body body;
  body.layer = "causal mask";
  if (chunk.mask_source >= 0) allocate(body.events, chunk.mask_source);
  allocate(body.events, chunk.mask);
  if (chunk.mask_source >= 0) free(body.events, chunk.mask_source);
  phase.bodies.push_back(std::move(body));
}

void Assembler::settle_shared(Chunk& chunk) {
  for (const std::int32_t index : std::exchange(shared_.slots, {})) {
    bool held = false;
    for (Chain& chain : chunk.chains) {
      for (Unit& unit : chain.units) {
        forget(unit.trace.forward, index);
        forget(unit.trace.after_forward, index);
        if (held) forget(unit.trace.backward, index);
        held = held || std::any_of(unit.trace.backward.begin(), unit.trace.backward.end(),
                                   [index](const Event& event) { return releases(event, index); });
      }
    }
    if (!held) chunk.unheld.push_back(index);
  }
}

}  // namespace steelyard::step
