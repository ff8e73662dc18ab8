// One block of the graph, run forward and backward on a tape by itself: what a layer allocates,
// keeps, frees and computes. Layers of a segment are alike, so one trace stands for all of them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/graph.h"
#include "step/frames.h"
#include "step/primitives_quantized.h"
#include "step/program.h"
#include "step/tape.h"
#include "step/variants.h"

namespace steelyard::step {

// What of a block's forward pass is computed again in backward.
enum class Recompute : std::uint8_t {
  none,
  everything,      // the input alone is kept
  operations,      // torchtitan's selective-op: some results are kept (Tape::set_cache)
  core_attention,  // Megatron's selective: attention alone, its inputs are kept
};

struct BlockOptions {
  TapeOptions tape;
  Variants variants;
  facts::DType weight_dtype = facts::DType::fp32;  // of the weights that the operators use
  Recompute recompute = Recompute::none;
  // Modules that run again in backward (recomputed_modules.h); "moe_act": the experts' activation.
  std::vector<std::string> recomputed_modules;
  Frames frames = Frames::modules;
  // Gradients are added into buffers that exist before the first micro-batch.
  bool gradients_exist = false;
  bool accumulates = false;  // several micro-batches: the sums are counted as work
  bool weights_train = true;
  bool no_grad = false;  // under torch.no_grad(): nothing is kept, there is no backward pass
  // Types of single weights, where they differ from `weight_dtype`.
  std::function<facts::DType(const model::Weight&)> weight_type;
  Quantized quantization;           // of weights that are
  Ratio left_over_share{1.0};       // of a micro-batch: what its predecessor's nodes still hold
  bool input_requires_grad = true;  // false: nothing before this block trains
  // Input, and the arriving gradient, stay until the micro-batch ends.
  bool keeps_input = false, keeps_gradient = false;
  // The output is made a leaf that requires a gradient, whether the block trains or not.
  bool output_made_leaf = false;
  // Weights (by name) that already have a gradient from another block: a tied output projection.
  std::set<std::string, std::less<>> graded;
};

// What a block hands to the next one, told from trace to trace.
struct Handover {
  std::optional<facts::DType> dtype;  // nothing yet: the residual stream of a language model
  // The block that made it keeps it for its own backward pass (a ReLU's result) and frees it there:
  // the next block reads it, and may save it, without owning it. It works backwards earlier.
  bool borrowed = false;
  // It is also a tensor that later blocks read (model::Graph::shared): whoever lets go of it last
  // frees it. -1: no.
  std::int32_t shared = -1;

  friend bool operator==(const Handover&, const Handover&) = default;
};

// Tensors that all blocks share, made by the first block that has them as outputs.
struct SharedTensors {
  Handover stream;
  std::vector<Tensor> tensors;      // by index into model::Graph::shared; empty until made
  Tensor labels;                    // of the batch: exist before the step
  Tensor mask;                      // of math attention
  std::vector<std::int32_t> slots;  // of the tensors made in the step
  // By index: the slot that all blocks' gradients of the tensor are summed in; -1: none wanted.
  std::vector<std::int32_t> gradients;
};

struct SavedStorage {
  Bytes bytes;
  bool external = false;     // shared by all layers or of the batch
  bool weight_cast = false;  // autocast's copy of a weight
  bool borrowed = false;     // the block's input, which the block before saves as well
};

struct BlockTrace {
  std::vector<Event> forward;
  std::vector<Event> after_forward;   // autocast ends: cached weight casts that nobody saved
  std::vector<Event> backward;        // release_shared: the block lets go of a shared tensor
  std::vector<Event> after_backward;  // what is held until the whole model's is through
  std::vector<Event> end_of_step;     // what the caller held until the step ended (logits, loss)
  // Slots like those of what nodes hold until the next forward's loss takes this one's place: as
  // the micro-batch before left them.
  std::vector<std::int32_t> left_over;
  std::vector<SavedStorage> saved;  // after forward, each storage once, weights left out
  // By weight of the block: the slot of its kept gradient, -1 when it has none of its own (frozen,
  // tied or already existing).
  std::vector<std::int32_t> gradients;
  std::int64_t kernels = 0;  // launched in forward and backward
  Bytes offloaded;           // saved tensors that wait on the host for backward
  bool output_requires_grad = true;
};

// Runs the block. `first`: no block before it, `last`: its output is the loss. New slots, names and
// work are added to `program`; weights that are tied to another block's add their gradient there.
[[nodiscard]] BlockTrace trace_block(Program& program, const model::Graph& graph,
                                     const model::Block& block, const BlockOptions& options,
                                     SharedTensors& shared, bool first, bool last);

}  // namespace steelyard::step
