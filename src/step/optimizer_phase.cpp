// The optimizer's step and what zero_grad frees.
#include <algorithm>
#include <utility>

#include "step/assembler.h"
#include "step/weight_storage.h"

namespace steelyard::step {

namespace {
using facts::VramCategory;
}

// Megatron's fp32 gradients beside a buffer of another type; none elsewhere.
Bytes Assembler::main_gradient(const model::Weight& weight) const {
  const DType stepped_as = stepped_type(layout_, weight);
  if (!layout_.gradient_buffer || stepped_as == gradient_type(layout_, weight)) return {};
  const std::int64_t shards = shards_of(layout_, weight, layout_.optimizer_shards);
  return bytes_of(ceil_divide(model::elements(weight.shape), shards), stepped_as);
}

bool Assembler::keeps_master_gradients() const {
  return layout_.master && variants_.master_gradients_last && layout_.optimizer_shards == 1 &&
         layout_.stepped != layout_.gradient && !layout_.gradient_buffer;
}

// The stepped type's gradient, when it is not the gradient's own: DeepSpeed casts its partition to
// fp32 (stage_1_and_2.py:2361), apex's O2 what it unscales. -1: none.
std::int32_t Assembler::stepped_gradient(const model::Weight& weight) {
  const DType stepped_as = stepped_type(layout_, weight);
  if (stepped_as == gradient_type(layout_, weight) || layout_.gradient_buffer) return -1;
  if (keeps_master_gradients()) return -1;
  const std::int64_t shard = ceil_divide(model::elements(weight.shape),
                                         shards_of(layout_, weight, layout_.optimizer_shards));
  const std::int64_t graded = weight.touched > 0 ? weight.touched : shard;
  return typed(slot(bytes_of(graded, stepped_as), VramCategory::temporaries, "gradient in fp32"),
               stepped_as, weight.shape);
}

// One weight's step; what it holds until it, or a step of all weights at once, is done.
std::vector<std::int32_t> Assembler::step_weight(std::vector<Event>& events,
                                                 const model::Weight& weight, bool with_gradient) {
  const OptimizerLayout& optimizer = layout_.optimizer;
  const std::int64_t shard = ceil_divide(model::elements(weight.shape),
                                         shards_of(layout_, weight, layout_.optimizer_shards));
  const DType stepped_as = stepped_type(layout_, weight);
  // Of a sparse gradient only the rows that were read are stepped.
  const std::int64_t graded = weight.touched > 0 ? weight.touched : shard;
  const Bytes stepped = bytes_of(graded, stepped_as);
  std::vector<std::int32_t> held;
  if (const std::int32_t gradient = with_gradient ? stepped_gradient(weight) : -1; gradient >= 0) {
    held.push_back(gradient);
  }
  for (std::int64_t i = 0; i < optimizer.step_copies; ++i) {
    held.push_back(typed(slot(stepped, VramCategory::temporaries, "optimizer temporary"),
                         stepped_as, weight.shape));
  }
  for (std::int32_t index : held) allocate(events, index);
  work(events, WorkKind::optimizer, stepped * Ratio(optimizer.passes), "optimizer");
  step_host_rows(events, weight);
  return held;
}

// torchtune's optimizer_in_bwd (Tensor.register_post_accumulate_grad_hook): as soon as a gradient
// is complete its own optimizer steps, and it is freed.
void Assembler::step_and_free(std::vector<Event>& events, const model::Weight& weight,
                              std::int32_t kept) {
  if (gradients_leave_at_once()) {
    transfer(events, bytes_of(model::elements(weight.shape), gradient_type(layout_, weight)),
             "gradients to the host");
  } else {
    for (std::int32_t index : step_weight(events, weight)) free(events, index);
  }
  free(events, kept);
}

// The hook runs when the engine has summed all that this backward pass brings (AccumulateGrad is a
// node with one input): behind the last chunk of a loss in chunks, and of a weight that two blocks
// share behind the block that runs backward last, its owner.
void Assembler::step_in_backward(Unit& unit) {
  const bool at_once = job_.train.optimizer.in_backward || gradients_leave_at_once();
  if (!at_once || layout_.gathers) return;
  std::map<std::int32_t, std::size_t> last;  // by kept gradient: where it is complete
  const std::vector<Event>& backward = unit.trace.backward;
  const auto kept_by = [this](const Event& event) {
    return program_.gradients[static_cast<std::size_t>(event.index)].kept;
  };
  for (std::size_t i = 0; i < backward.size(); ++i) {
    if (backward[i].kind == EventKind::keep_gradient) last[kept_by(backward[i])] = i;
  }
  std::vector<Event> events;
  for (std::size_t i = 0; i < backward.size(); ++i) {
    events.push_back(backward[i]);
    if (backward[i].kind != EventKind::keep_gradient || last[kept_by(backward[i])] != i) continue;
    const std::int32_t kept = kept_by(backward[i]);
    const auto& gradients = unit.trace.gradients;
    const auto at = std::find(gradients.begin(), gradients.end(), kept) - gradients.begin();
    if (at == std::ssize(gradients)) continue;  // of a tensor that all blocks share
    const model::Weight& weight = unit.block->weights[static_cast<std::size_t>(at)];
    if (weight.tied_to.empty()) {
      step_and_free(events, weight, kept);
    } else {
      tied_gradients_.emplace(weight.tied_to, kept);
    }
  }
  unit.trace.backward = std::move(events);
}

void Assembler::step_tied_in_backward(Chunk& chunk) {
  for (Chain& chain : chunk.chains) {
    for (Unit& unit : chain.units) {
      for (const model::Weight& weight : unit.block->weights) {
        const auto tied = tied_gradients_.find(weight.name);
        if (tied != tied_gradients_.end()) {
          step_and_free(unit.trace.backward, weight, tied->second);
        }
      }
    }
  }
  tied_gradients_.clear();
}

// foreach and fused: the temporaries of all parameters live side by side.
void Assembler::step_together(Phase& phase) {
  std::vector<Body> release;
  for (const model::Segment& segment : graph_.segments) {
    Body body;
    Body after;
    Body later;
    body.layer = after.layer = later.layer = segment.blocks.front().name;
    body.repeat = after.repeat = later.repeat = segment.repeat;
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        if (!steps(weight)) continue;
        const Bytes wide = main_gradient(weight);
        if (wide > Bytes()) {
          // _copy_model_grads_to_main_grads: kept until zero_grad of the next step.
          const std::int32_t index = slot(wide, VramCategory::gradients, "gradient in fp32");
          allocate(body.events, index);
          free(later.events, index);
        }
        const std::vector<std::int32_t> held = step_weight(body.events, weight);
        for (std::int32_t index : held) free(after.events, index);
      }
    }
    phase.bodies.push_back(std::move(body));
    if (!later.events.empty()) released_by_zero_grad_.push_back(std::move(later));
    if (!after.events.empty()) release.push_back(std::move(after));
  }
  for (Body& body : release) phase.bodies.push_back(std::move(body));
}

// What a Python loop steps with: gradients of the stepped type, all before the first parameter
// steps and until zero_grad (apex, amp/_process_optimizer.py, post_backward_with_master_weights).
std::vector<Body> Assembler::widen_gradients(Phase& phase) {
  std::vector<Body> release;
  for (const model::Segment& segment : graph_.segments) {
    Body body, after;
    body.layer = after.layer = segment.blocks.front().name;
    body.repeat = after.repeat = segment.repeat;
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        const std::int32_t gradient = steps(weight) ? stepped_gradient(weight) : -1;
        if (gradient < 0) continue;
        allocate(body.events, gradient);
        free(after.events, gradient);
      }
    }
    if (body.events.empty()) continue;
    phase.bodies.push_back(std::move(body));
    release.push_back(std::move(after));
  }
  return release;
}

// A Python loop: its last temporary (Adam's denom = sqrt / correction) is a variable, which the
// next parameter's replaces.
void Assembler::step_one_by_one(Phase& phase) {
  const auto variable = [this](Bytes bytes) {
    return slot(bytes, VramCategory::temporaries, "optimizer temporary");
  };
  std::vector<Body> release = widen_gradients(phase);
  Body start;
  start.layer = "optimizer";
  const std::int32_t unbound = variable(Bytes());
  allocate(start.events, unbound);
  start.events.push_back({EventKind::carry, unbound});
  phase.bodies.push_back(std::move(start));
  for (const model::Segment& segment : graph_.segments) {
    Body body;
    body.layer = segment.blocks.front().name;
    body.repeat = segment.repeat;
    std::int32_t bound = variable(Bytes());
    body.events.push_back({EventKind::adopt, bound});
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        if (!steps(weight)) continue;
        std::vector<std::int32_t> held = step_weight(body.events, weight, false);
        if (held.empty()) continue;
        const std::int32_t before = std::exchange(bound, held.back());
        held.pop_back();
        for (std::int32_t index : held) free(body.events, index);
        free(body.events, before);
      }
    }
    body.events.push_back({EventKind::carry, bound});
    phase.bodies.push_back(std::move(body));
  }
  Body end;
  end.layer = "optimizer";
  const std::int32_t last = variable(Bytes());
  end.events.push_back({EventKind::adopt, last});
  free(end.events, last);
  phase.bodies.push_back(std::move(end));
  for (Body& body : release) phase.bodies.push_back(std::move(body));
}

// A kernel without side effects: what it steps and its averages are new tensors, and so is the
// update; the old ones go when all are there, and where they lay the next step's activations lie.
void Assembler::replace_stepped(std::vector<Event>& events, const model::Weight& weight) {
  const std::vector<std::int32_t>& held = stepped_[&weight];
  std::vector<std::int32_t> fresh;
  for (const std::int32_t old : held) {
    const Slot like = program_.slots[static_cast<std::size_t>(old)];
    fresh.push_back(slot(like.bytes, like.category, "what the optimizer returns"));
    program_.slots.back().dtype = like.dtype;
    program_.slots.back().extent = like.extent;
  }
  const Bytes stepped = bytes_of(model::elements(weight.shape), stepped_type(layout_, weight));
  const std::int32_t update = slot(stepped, VramCategory::temporaries, "optimizer temporary");
  // The averages, the update, then the parameter, which held begins with.
  for (std::size_t i = 1; i < fresh.size(); ++i) allocate(events, fresh[i]);
  allocate(events, update);
  allocate(events, fresh.front());
  work(events, WorkKind::optimizer, stepped * Ratio(layout_.optimizer.passes), "optimizer");
  free(events, update);
  for (std::size_t i = 0; i < fresh.size(); ++i) {
    free(events, held[i]);
    program_.gradients.push_back({fresh[i], held[i]});
    events.push_back(
        {EventKind::keep_gradient, static_cast<std::int32_t>(program_.gradients.size()) - 1});
  }
}

void Assembler::step_functionally(Phase& phase) {
  std::vector<Body> release = widen_gradients(phase);
  for (const model::Segment& segment : graph_.segments) {
    Body body;
    body.layer = segment.blocks.front().name;
    body.repeat = segment.repeat;
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        if (steps(weight)) replace_stepped(body.events, weight);
      }
    }
    phase.bodies.push_back(std::move(body));
  }
  for (Body& body : release) phase.bodies.push_back(std::move(body));
}

namespace {

// Trained elements of experts, which Megatron's distributed optimizer shards over the ranks that
// hold the same ones.
std::int64_t expert_elements(const model::Graph& graph) {
  std::int64_t sum = 0;
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        if (!weight.expert || !weight.trains || weight.placed || !weight.tied_to.empty()) continue;
        sum = checked_add(sum, checked_multiply(segment.repeat, model::elements(weight.shape)));
      }
    }
  }
  return sum;
}

}  // namespace

void Assembler::add_optimizer_step() {
  Phase phase{PhaseKind::optimizer, {}};
  if (job_.train.optimizer.in_backward) {  // done; its states are made behind the first backward
    program_.step.push_back({1, {std::move(phase)}});
    return;
  }
  if (layout_.on_host.optimizer) {
    step_on_host(phase);
  } else if (flat_states()) {
    step_partition(phase);
  } else if (layout_.optimizer.functional) {
    step_functionally(phase);
  } else if (layout_.optimizer.loop && layout_.optimizer.step_copies > 0) {
    step_one_by_one(phase);
  } else {
    step_together(phase);
  }
  swap_parameters_out(phase);
  if (layout_.optimizer_shards > 1 && !layout_.gathers) {
    // ZeRO-1/2: every rank has stepped its partition; all gather the new parameters.
    Body body;
    body.layer = "parameters";
    const std::int64_t apart = layout_.parameter_buffer ? expert_elements(graph_) : 0;
    communicate(body.events, Collective::all_gather,
                bytes_of(trained_elements(graph_) - apart, layout_.parameter), false,
                "all_gather parameters", groups_.shards);
    communicate(body.events, Collective::all_gather, bytes_of(apart, layout_.parameter), false,
                "all_gather experts", groups_.expert_replicas);
    phase.bodies.push_back(std::move(body));
  }
  program_.step.push_back({1, {std::move(phase)}});
}

void Assembler::release_gradients(std::vector<Event>& events, const Unit& unit) {
  if (!profile_.gradients_set_to_none || job_.train.optimizer.in_backward) return;
  if (gradients_leave_at_once() || saves_shards()) return;
  if (layout_.gathers || layout_.gradient_shards > 1) {
    if (unit.sharded_gradient >= 0) free(events, unit.sharded_gradient);
    return;
  }
  for (std::int32_t index : unit.trace.gradients) {
    if (index >= 0) free(events, index);
  }
}

// What the layers hold beyond their own backward pass.
void Assembler::release_held(const Chunk& chunk, Phase& phase,
                             std::vector<Event> BlockTrace::*which) {
  for (const Chain& chain : chunk.chains) {
    Body body;
    body.layer = chain.units.front().block->name;
    body.repeat = chain.repeat;
    for (const Unit& unit : chain.units) {
      const std::vector<Event>& held = unit.trace.*which;
      body.events.insert(body.events.end(), held.begin(), held.end());
    }
    if (!body.events.empty()) phase.bodies.push_back(std::move(body));
  }
}

// What the nodes of one loss hold goes when the next loss takes its place. A pipeline's schedule
// lets go of each micro-batch's loss by itself.
void Assembler::add_left_over(const Chunk& chunk, Phase& phase, EventKind kind) {
  if (!held_to_the_end()) return;
  for (const Chain& chain : chunk.chains) {
    Body body;
    body.layer = chain.units.front().block->name;
    body.repeat = chain.repeat;
    for (const Unit& unit : chain.units) {
      for (const std::int32_t slot : unit.trace.left_over) body.events.push_back({kind, slot});
    }
    if (!body.events.empty()) phase.bodies.push_back(std::move(body));
  }
}

void Assembler::add_zero_grad() {
  Phase phase{PhaseKind::zero_grad, {}};
  for (const Chunk& chunk : chunks_) {
    for (const Chain& chain : chunk.chains) {
      Body body;
      body.layer = chain.units.front().block->name;
      body.repeat = chain.repeat;
      for (const Unit& unit : chain.units) {
        if (!gradients_stepped()) release_gradients(body.events, unit);
      }
      phase.bodies.push_back(std::move(body));
    }
  }
  if (gradient_partition_ >= 0 && !gradients_stepped() && !layout_.gathers)
    free(phase.bodies.back().events, gradient_partition_);
  end_schedule(phase);
  for (Body& body : released_by_zero_grad_) phase.bodies.push_back(std::move(body));
  if (held_to_the_end()) {
    for (const Chunk& chunk : chunks_) release_held(chunk, phase, &BlockTrace::end_of_step);
  }
  program_.step.push_back({1, {std::move(phase)}});
}

}  // namespace steelyard::step
