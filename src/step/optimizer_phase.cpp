// The optimizer's step and what zero_grad frees.
#include <algorithm>
#include <utility>

#include "step/assembler.h"
#include "step/weight_storage.h"

namespace steelyard::step {

namespace {
using facts::VramCategory;
}

void Assembler::add_optimizer_step() {
  const OptimizerLayout& optimizer = layout_.optimizer;
  Phase phase{PhaseKind::optimizer, {}};
  Phase release{PhaseKind::optimizer, {}};
  for (const model::Segment& segment : graph_.segments) {
    Body body;
    Body after;
    Body later;
    body.layer = after.layer = later.layer = segment.blocks.front().name;
    body.repeat = after.repeat = later.repeat = segment.repeat;
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        if (!steps(weight)) continue;
        const std::int64_t shard = ceil_divide(
            model::elements(weight.shape), shards_of(layout_, weight, layout_.optimizer_shards));
        const DType stepped_as = stepped_type(layout_, weight);
        const DType graded_as = gradient_type(layout_, weight);
        const Bytes stepped = bytes_of(shard, stepped_as);
        std::vector<std::int32_t> held;
        if (layout_.gradient_buffer && stepped_as != graded_as) {
          // _copy_model_grads_to_main_grads: kept until zero_grad of the next step.
          const std::int32_t wide = slot(stepped, VramCategory::gradients, "gradient in fp32");
          allocate(body.events, wide);
          free(later.events, wide);
        }
        // The stepped type's gradient, when it is not the gradient's own: DeepSpeed casts its
        // partition to fp32 (stage_1_and_2.py:2361).
        if (stepped_as != graded_as && !layout_.gradient_buffer) {
          held.push_back(slot(stepped, VramCategory::temporaries, "gradient in fp32"));
        }
        for (std::int64_t i = 0; i < optimizer.step_copies; ++i) {
          held.push_back(slot(stepped, VramCategory::temporaries, "optimizer temporary"));
        }
        for (std::int32_t index : held) allocate(body.events, index);
        if (job_.train.gradient_clipping) {
          work(body.events, WorkKind::optimizer, 3 * bytes_of(shard, graded_as), "clip_grad_norm");
        }
        work(body.events, WorkKind::optimizer, stepped * Ratio(optimizer.passes), "optimizer");
        std::vector<Event>& freeing = optimizer.loop ? body.events : after.events;
        for (std::int32_t index : held) free(freeing, index);
      }
    }
    phase.bodies.push_back(std::move(body));
    if (!after.events.empty()) release.bodies.push_back(std::move(after));
    if (!later.events.empty()) released_by_zero_grad_.push_back(std::move(later));
  }
  for (Body& body : release.bodies) phase.bodies.push_back(std::move(body));
  if (layout_.optimizer_shards > 1 && !layout_.gathers) {
    // ZeRO-1/2: every rank has stepped its partition; all gather the new parameters.
    Body body;
    body.layer = "parameters";
    communicate(body.events, Collective::all_gather,
                bytes_of(trained_elements(graph_), layout_.parameter), false,
                "all_gather parameters", groups_.shards);
    phase.bodies.push_back(std::move(body));
  }
  program_.step.push_back({1, {std::move(phase)}});
}

void Assembler::release_gradients(std::vector<Event>& events, const Unit& unit) {
  if (!profile_.gradients_set_to_none) return;
  const bool sharded = layout_.gathers || layout_.gradient_shards > 1;
  for (std::int32_t index : sharded ? unit.sharded_gradients : unit.trace.gradients) {
    if (index >= 0) free(events, index);
  }
}

void Assembler::add_zero_grad() {
  Phase phase{PhaseKind::zero_grad, {}};
  for (const Chunk& chunk : chunks_) {
    for (const Chain& chain : chunk.chains) {
      Body body;
      body.layer = chain.units.front().block->name;
      body.repeat = chain.repeat;
      for (const Unit& unit : chain.units) release_gradients(body.events, unit);
      phase.bodies.push_back(std::move(body));
    }
  }
  if (gradient_partition_ >= 0) free(phase.bodies.back().events, gradient_partition_);
  for (Body& body : released_by_zero_grad_) phase.bodies.push_back(std::move(body));
  program_.step.push_back({1, {std::move(phase)}});
}

}  // namespace steelyard::step
