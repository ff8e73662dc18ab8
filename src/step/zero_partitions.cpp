// DeepSpeed's ZeRO-1 and ZeRO-2 (deepspeed/runtime/zero/stage_1_and_2.py, read at edaa722): trained
// parameters are views of one flat tensor; of it, of its fp32 copy, of the gradients that the
// optimizer reads and of its states each rank has one flat partition.
#include <algorithm>
#include <map>
#include <utility>

#include "step/assembler.h"
#include "step/weight_storage.h"

namespace steelyard::step {

namespace {
using facts::VramCategory;

constexpr std::string_view kPartitionCopies = "partition_copies";
}  // namespace

// Of older runs (zero_flattening = "on_host") the pieces stay those of the parameters: played flat,
// bigscience's rows of 2021 get 5 points worse, for a reason that was not found.
bool Assembler::partitions() const {
  return layout_.flat_buckets && !layout_.gathers && variants_.flattens_on_card;
}

// Muon's and Adafactor's states follow the shapes of the parameters.
bool Assembler::flat_states() const {
  return partitions() && !layout_.on_host.optimizer && !layout_.optimizer.matrices_only &&
         !layout_.optimizer.factored;
}

std::int64_t Assembler::partition_elements() const {
  std::int64_t numel = 0;
  for (const model::Segment& segment : graph_.segments) {
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        if (!steps(weight)) continue;
        const std::int64_t shards = shards_of(layout_, weight, layout_.optimizer_shards);
        numel +=
            checked_multiply(segment.repeat, ceil_divide(model::elements(weight.shape), shards));
      }
    }
  }
  return numel;
}

// Of `trained` elements; experts' gradients are divided among fewer ranks than the others'.
std::int64_t Assembler::gradient_partition_elements(std::int64_t trained) const {
  std::map<std::int64_t, std::int64_t> elements = {{layout_.gradient_shards, trained}};
  for (const model::Segment& segment : graph_.segments) {
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        const std::int64_t shards = shards_of(layout_, weight, layout_.gradient_shards);
        if (!steps(weight) || shards == layout_.gradient_shards) continue;
        const std::int64_t all = checked_multiply(segment.repeat, model::elements(weight.shape));
        elements[layout_.gradient_shards] -= all;
        elements[shards] += all;
      }
    }
  }
  std::int64_t numel = 0;
  for (const auto& [shards, all] : elements) numel += ceil_divide(all, shards);
  return numel;
}

std::int32_t Assembler::partition_slot(DType dtype, VramCategory category, std::string_view text) {
  const std::int64_t numel = partition_elements();
  return typed(slot(bytes_of(numel, dtype), category, text), dtype, {numel});
}

// Since 0.18.6 (pull request 7828) the flat tensor is made beside the parameters where the card has
// room for both; they are freed, but what they took stays in the allocator. Before, and where there
// is no room, parameters went to the host and the cache was emptied. BF16_Optimizer
// (bf16_optimizer.py) always did it on the card.
bool Assembler::flattens_on_card(Bytes flat) const {
  return sums_wide() || !layout_.card || flat + flat <= *layout_.card;
}

bool Assembler::sums_wide() const {
  return job_.megatron && job_.megatron->wide_gradient_copy;
}

void Assembler::add_flattened_parameters() {
  Bytes flat;
  for (const model::Segment& segment : graph_.segments) {
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        if (steps(weight)) flat += segment.repeat * held_bytes(layout_, weight);
      }
    }
  }
  const bool on_card = flattens_on_card(flat);
  Phase phase{PhaseKind::setup, {}};
  std::vector<Body> release;
  for (const model::Segment& segment : graph_.segments) {
    Body body;
    Body after;
    body.layer = after.layer = segment.blocks.front().name;
    body.repeat = after.repeat = segment.repeat;
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        if (!weight.tied_to.empty() || (steps(weight) && !on_card)) continue;
        for (const Piece& piece : pieces_of(layout_, weight)) {
          const std::int32_t index =
              slot(bytes_of(piece.numel, piece.dtype), VramCategory::parameters, weight.name);
          allocate(body.events, typed(index, piece.dtype, weight.shape));
          if (steps(weight)) free(after.events, index);
        }
      }
    }
    if (!body.events.empty()) phase.bodies.push_back(std::move(body));
    if (!after.events.empty()) release.push_back(std::move(after));
  }
  Body whole;
  whole.layer = "flat parameters";
  allocate(whole.events, slot(flat, VramCategory::parameters, "flat parameters"));
  phase.bodies.push_back(std::move(whole));
  for (Body& body : release) phase.bodies.push_back(std::move(body));
  program_.setup.push_back({1, {std::move(phase)}});
  add_buffers();
}

// The fp32 partition comes from a clone of the short one, also where both have one type; a
// partition of zeros is made as gradient and let go of (initialize_optimizer_states); the states
// come with the first step (since February 2024, pull request 5104).
void Assembler::add_partition_states() {
  const OptimizerLayout& optimizer = layout_.optimizer;
  Phase phase{PhaseKind::setup, {}};
  Body body;
  body.layer = "optimizer";
  const bool short_clone = layout_.parameter != layout_.stepped;
  if (short_clone) {
    const std::int32_t clone =
        partition_slot(layout_.parameter, VramCategory::temporaries, "partition");
    allocate(body.events, clone);
    allocate(body.events,
             partition_slot(layout_.stepped, VramCategory::optimizer, "master weights"));
    free(body.events, clone);
  } else {
    allocate(body.events,
             partition_slot(layout_.stepped, VramCategory::optimizer, "master weights"));
  }
  const std::int32_t zeros =
      partition_slot(layout_.stepped, VramCategory::temporaries, "gradient of zeros");
  if (!sums_wide()) allocate(body.events, zeros);
  Body states;
  states.layer = "optimizer";
  const std::int64_t numel = partition_elements();
  for (std::int64_t i = 0; i < optimizer.states; ++i) {
    const std::int32_t index = slot(state_bytes(optimizer, numel, optimizer.state),
                                    VramCategory::optimizer, "optimizer state");
    program_.slots[static_cast<std::size_t>(index)].managed = optimizer.paged;
    if (!optimizer.in_blocks) typed(index, optimizer.state, {numel});
    allocate(states.events, index);
  }
  if (!sums_wide()) free(body.events, zeros);
  phase.bodies.push_back(std::move(body));
  program_.setup.push_back({1, {std::move(phase)}});
  if (!states.events.empty()) {
    program_.first_optimizer.push_back({1, {{PhaseKind::optimizer, {std::move(states)}}}});
  }
}

// copy_grads_in_partition makes a new partition in every backward; a further micro-batch's is added
// to the first one's and then let go of (independent_gradient_partition_epilogue).
void Assembler::add_partition(std::vector<Event>& events, bool first) {
  if (!partitions() || first || job_.parallel.pipeline > 1) {
    events.push_back({EventKind::ensure, gradient_partition_});
    return;
  }
  if (next_partition_ < 0) {
    next_partition_ =
        partition_slot(layout_.gradient, VramCategory::gradients, "gradient partition");
  }
  allocate(events, next_partition_);
}

// The last reduction of a backward: what belongs to several ranks is joined into a tensor that is
// all-reduced (allreduce_bucket); then the buffers go.
void Assembler::join_bucket(std::vector<Event>& events, bool first) {
  const std::int64_t bucket = checked_round(job_.parallel.buckets.reduce);
  const std::int64_t numel = std::min(bucket, trained_elements(graph_));
  if (partitions() && layout_.data > 1) {
    const std::int32_t joined =
        slot(bytes_of(numel, layout_.gradient), VramCategory::communication, "joined bucket");
    allocate(events, joined);
    free(events, joined);
  }
  if (next_partition_ >= 0 && !first) free(events, next_partition_);
  free(events, reduce_bucket_);
}

// The gradients went with the optimizer's step, not with zero_grad.
bool Assembler::gradients_stepped() const {
  return flat_states() && !sums_wide();
}

// ZeRO-1 has copied its own part of the gradients into a partition, then lets go of all of them
// (copy_grads_in_partition, free_grad_in_param_list).
void Assembler::partition_gradients(Phase& phase) {
  Body body;
  body.layer = "gradients";
  if (gradient_partition_ < 0) {
    gradient_partition_ =
        partition_slot(layout_.gradient, VramCategory::gradients, "gradient partition");
    allocate(body.events, gradient_partition_);
  }
  phase.bodies.push_back(std::move(body));
  for (const Chunk& chunk : chunks_) {
    for (const Chain& chain : chunk.chains) {
      Body release;
      release.layer = chain.units.front().block->name;
      release.repeat = chain.repeat;
      for (const Unit& unit : chain.units) release_gradients(release.events, unit);
      if (!release.events.empty()) phase.bodies.push_back(std::move(release));
    }
  }
}

// has_overflow looks for infinities in an fp32 copy of each gradient, get_grad_norm_direct squares
// a copy in double precision: temporaries of the largest gradient that one rank has.
void Assembler::check_gradients(Phase& phase) {
  std::int64_t largest = 0;
  for (const model::Segment& segment : graph_.segments) {
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        if (steps(weight)) largest = std::max(largest, model::elements(weight.shape));
      }
    }
  }
  largest = std::min(largest, partition_elements());
  Body body;
  body.layer = "gradient norm";
  const auto temporary = [&](Bytes bytes, std::string_view text) {
    const std::int32_t index = slot(bytes, VramCategory::temporaries, text);
    allocate(body.events, index);
    return index;
  };
  if (layout_.gradient != DType::fp32) {
    const std::int32_t wide = temporary(bytes_of(largest, DType::fp32), "gradient in fp32");
    const std::int32_t nan = temporary(Bytes(largest), "isnan");
    const std::int32_t absolute = temporary(bytes_of(largest, DType::fp32), "abs");
    const std::int32_t infinite = temporary(Bytes(largest), "isinf");
    free(body.events, absolute);
    const std::int32_t either = temporary(Bytes(largest), "logical_or");
    const std::int32_t number = temporary(bytes_of(largest, DType::fp32), "logical_or");
    for (const std::int32_t index : {number, either, infinite, nan, wide}) {
      free(body.events, index);
    }
  }
  free(body.events, temporary(2 * bytes_of(largest, DType::fp32), "gradient in double"));
  phase.bodies.push_back(std::move(body));
}

// step(): the gradients of the partition are joined, widened and let go of; the optimizer steps the
// fp32 partition, and only then its gradient goes.
void Assembler::step_partition(Phase& phase) {
  const OptimizerLayout& optimizer = layout_.optimizer;
  Body before;
  Body after;
  before.layer = after.layer = "optimizer";
  const auto hold = [&](std::int32_t index) {
    allocate(before.events, index);
    free(after.events, index);
  };
  if (gradients_stepped()) {  // BF16_Optimizer steps the fp32 gradients that it has summed
    check_gradients(phase);
    partition_gradients(phase);
    const bool casts = layout_.gradient != layout_.stepped;
    const std::int32_t joined =
        partition_slot(layout_.gradient, VramCategory::temporaries, "joined gradients");
    const Bytes narrow = bytes_of(partition_elements(), layout_.gradient);
    const Bytes wide = casts ? bytes_of(partition_elements(), layout_.stepped) + narrow : Bytes();
    work(before.events, WorkKind::optimizer, 2 * narrow + wide, kPartitionCopies);
    if (casts) {
      allocate(before.events, joined);
      hold(partition_slot(layout_.stepped, VramCategory::temporaries, "gradient in fp32"));
      free(before.events, joined);
    } else {
      hold(joined);
    }
    free(before.events, gradient_partition_);
  }
  for (std::int64_t i = 0; i < optimizer.step_copies; ++i) {
    hold(partition_slot(layout_.stepped, VramCategory::temporaries, "optimizer temporary"));
  }
  const Bytes stepped = bytes_of(partition_elements(), layout_.stepped);
  work(before.events, WorkKind::optimizer, stepped * Ratio(optimizer.passes), "optimizer");
  if (layout_.parameter != layout_.stepped) {
    work(before.events, WorkKind::optimizer,
         stepped + bytes_of(partition_elements(), layout_.parameter), kPartitionCopies);
  }
  phase.bodies.push_back(std::move(before));
  if (!after.events.empty()) phase.bodies.push_back(std::move(after));
}

}  // namespace steelyard::step
