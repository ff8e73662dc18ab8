// Parts of a block's trace that need no more than the tape's tensors: what backward will read, and
// what one block holds of the tensors that all blocks share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "step/block_trace.h"

namespace steelyard::step {

// The weights of a block as the tape sees them: they exist before and after.
[[nodiscard]] std::vector<Tensor> weights_of(Tape& tape, const model::Block& block,
                                             const BlockOptions& options);
// Of the batch, which exists before the step. Pictures come in the model's own type.
[[nodiscard]] Tensor of_batch(Tape& tape, const model::TensorInfo& info);
// The dimensions as a slot tells them; more than four are one.
[[nodiscard]] Extent extent_of(const model::Shape& shape);

// Whether this is the last product before the block's loss.
[[nodiscard]] bool is_projection(const model::Block& block, std::size_t index);

// The operator's first input is attention's result.
[[nodiscard]] bool reads_attention(const model::Block& block, const model::Operator& op);

// The slot that holds a weight's gradient between micro-batches, alike the fresh one.
[[nodiscard]] std::int32_t kept_gradient(Program& program, std::int32_t fresh);

// The event that hands `fresh` over to it.
[[nodiscard]] Event keeping(Program& program, std::int32_t fresh, std::int32_t kept);

// The event that adds a gradient to the sum of a shared tensor's, of kSharedLeaf. The engine sums
// in the buffer of the node that made it (input_buffer.cpp): the first gradient becomes the sum,
// unless somebody else still reads it.
[[nodiscard]] Event summed(Tape& tape, const SharedTensors& shared, std::int32_t leaf,
                           Tensor gradient);

// The caller gets keys and values back beside the logits: the model's own way, or the job's.
[[nodiscard]] bool returns_cache(const model::Operator& op, const Variants& variants);

// Whether a gradient is wanted for one of them.
[[nodiscard]] bool any_wants(const std::vector<Tensor>& tensors);

// Kernels launched in forward and backward.
[[nodiscard]] std::int64_t kernels_in(const BlockTrace& trace);

// A tensor like `gradient` that exists at once, also among compiled code: the engine's own sum.
[[nodiscard]] Tensor sum_beside(Tape& tape, const Tensor& gradient);

// The last nodes of what a block made: its output, and shared tensors.
[[nodiscard]] std::vector<NodeRef> nodes_behind(const Tensor& output, const SharedTensors& shared);

// The storages that the nodes behind `roots` saved, each once, weights left out. `borrowed`: the
// block's input, when the block before frees it.
[[nodiscard]] std::vector<SavedStorage> saved_storages(std::vector<NodeRef> roots,
                                                       const Storage* borrowed);

// What runs again is a graph of its own, of which a router's loss that stays on its module holds
// all before it: a checkpoint without reentrance runs no backward pass of it, which would free it.
// `made` is what the operator made; appends to `held` where the operator is such a router.
void hold_router_graph(const Tape& tape, const model::Operator& op, const Variants& variants,
                       const std::vector<Tensor>& made, std::vector<Tensor>& held);

// New slots like those of the tensors' storages, each once, that outlive a micro-batch; `share` of
// their bytes: samples before the longest are of the mean length.
[[nodiscard]] std::vector<std::int32_t> left_over_slots(Program& program,
                                                        const std::vector<Tensor>& held,
                                                        Ratio share);

// The activation of a gate that runs as soon as its argument, `made`, is there.
[[nodiscard]] bool activates(const model::Operator& op, std::int32_t made);

// Events [from, to) come behind those up to `behind`.
void move_behind(std::vector<Event>& events, std::size_t from, std::size_t to, std::size_t behind);

// What outlives the forward pass is an activation, whatever made it.
void mark_activations(Program& program, const std::vector<Event>& forward);

// A block holds what another block made for all in a storage of its own, whose end is a
// release_shared event. What exists before the step is handed on as it is; an empty tensor for what
// nobody made yet.
[[nodiscard]] Tensor lent(Tape& tape, const Tensor& shared);
// The stream from the block before: its own now, or of a block that keeps it or lent it to all
// (Handover).
[[nodiscard]] Tensor handed_over(Tape& tape, const SharedTensors& shared, std::int64_t numel);
// The index of the tensor for all blocks whose storage is the output's; -1: none.
[[nodiscard]] std::int32_t made_as(const SharedTensors& shared, const Tensor& output);

// To other blocks a shared tensor that requires a gradient is a leaf: this and its index.
constexpr std::int32_t kSharedLeaf = 1 << 24;

// A tensor whose backward pass begins in this block, and the gradient that arrives for it.
using Root = std::pair<Tensor, Tensor>;

// What this block made for all blocks outlives its tape; its own nodes' hold ends in an event too.
// Those that require a gradient, each with the sum of what the other blocks send.
[[nodiscard]] std::vector<Root> share_made(Tape& tape, SharedTensors& shared);

}  // namespace steelyard::step
