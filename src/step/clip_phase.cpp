// Clipping the gradients by their norm, between backward and the optimizer.
#include <algorithm>
#include <utility>

#include "step/assembler.h"
#include "step/weight_storage.h"

namespace steelyard::step {

namespace {

using facts::VramCategory;

// Partial results of the foreach norm kernel: one per so many elements of the largest tensor, for
// each tensor (aten/src/ATen/native/cuda/ForeachReduceOp.cu:147).
constexpr std::int64_t kNormChunk = 65536;

}  // namespace

// torch.nn.utils.clip_grad_norm_(foreach=True): a norm per tensor, stacked and reduced to one; the
// coefficient clip / (norm + 1e-6), clamped; gradients are scaled in place.
void Assembler::add_clipping() {
  if (!job_.train.gradient_clipping || job_.train.optimizer.in_backward) return;
  if (layout_.on_host.gradients) return;  // step_on_host
  // DeepSpeed and Megatron work on their flat buffers.
  const bool tensors_apart = !layout_.flat_buckets && !layout_.gradient_buffer;
  Phase phase{PhaseKind::clip, {}};
  std::vector<Body> release;
  std::int64_t tensors = 0;
  std::int64_t largest = 1;
  DType widest = DType::bf16;  // of the gradients: the norms are stacked in it
  for (const model::Segment& segment : graph_.segments) {
    Body body;
    Body after;
    body.layer = after.layer = segment.blocks.front().name;
    body.repeat = after.repeat = segment.repeat;
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        if (!steps(weight)) continue;
        const std::int64_t shard = ceil_divide(
            model::elements(weight.shape), shards_of(layout_, weight, layout_.optimizer_shards));
        const DType type = gradient_type(layout_, weight);
        const std::int64_t graded = weight.touched > 0 ? weight.touched : shard;
        work(body.events, WorkKind::optimizer, 3 * bytes_of(graded, type), "clip_grad_norm");
        if (!tensors_apart) continue;
        tensors += segment.repeat;
        largest = std::max(largest, graded);
        if (facts::bytes_of(type) > facts::bytes_of(widest)) widest = type;
        const std::int32_t norm = slot(bytes_of(1, type), VramCategory::temporaries, "norm");
        allocate(body.events, norm);
        free(after.events, norm);
      }
    }
    phase.bodies.push_back(std::move(body));
    if (!after.events.empty()) release.push_back(std::move(after));
  }
  if (tensors > 0) {
    add_total_norm(phase, std::move(release), tensors, ceil_divide(largest, kNormChunk), widest);
  }
  program_.step.push_back({1, {std::move(phase)}});
}

void Assembler::add_total_norm(Phase& phase, std::vector<Body> release, std::int64_t tensors,
                               std::int64_t chunks, DType type) {
  const auto temporary = [this, type](std::int64_t numel, std::string_view text) {
    return slot(bytes_of(numel, type), VramCategory::temporaries, text);
  };
  if (!variants_.fake_tensors) {
    Body kernel;
    kernel.layer = "gradient norm";
    const std::int32_t partial = temporary(checked_multiply(tensors, chunks), "partial norms");
    allocate(kernel.events, partial);
    free(kernel.events, partial);
    phase.bodies.insert(phase.bodies.begin(), std::move(kernel));
  }
  Body total;
  Body scale;
  total.layer = scale.layer = "gradient norm";
  const std::int32_t stack = temporary(tensors, "stack");
  const std::int32_t norm = temporary(1, "norm");
  allocate(total.events, stack);
  allocate(total.events, norm);
  free(total.events, stack);
  const std::int32_t sum = temporary(1, "add");
  const std::int32_t reciprocal = temporary(1, "reciprocal");
  const std::int32_t product = temporary(1, "mul");
  const std::int32_t clamped = temporary(1, "clamp");
  allocate(scale.events, sum);
  allocate(scale.events, reciprocal);
  allocate(scale.events, product);
  free(scale.events, reciprocal);
  free(scale.events, sum);
  allocate(scale.events, clamped);
  for (const std::int32_t index : {product, clamped, norm}) free(scale.events, index);
  phase.bodies.push_back(std::move(total));
  for (Body& body : release) phase.bodies.push_back(std::move(body));
  phase.bodies.push_back(std::move(scale));
}

}  // namespace steelyard::step
