// What FSDP gathers, reduces and frees around a unit (torch/distributed/fsdp, read in PyTorch 2.6).
//
// FSDP2 (_fully_shard/_fsdp_param_group.py, _fsdp_collectives.py): a unit's parameters arrive in
// one flat buffer and are copied out into tensors of their own; in backward the next unit's buffer
// is gathered while this one computes; gradients are copied into a flat buffer of the reduction
// type. FSDP1 (_flat_param.py, _runtime_utils.py): parameters and gradients are views of one flat
// tensor, whose blocks wait for other streams when they are freed (record_stream).
#include <utility>

#include "step/assembler.h"
#include "step/weight_storage.h"

namespace steelyard::step {

using facts::VramCategory;

namespace {

std::int64_t own_elements(const model::Block& block) {
  std::int64_t sum = 0;
  for (const model::Weight& weight : block.weights) {
    if (weight.tied_to.empty()) sum += model::elements(weight.shape);
  }
  return sum;
}

}  // namespace

void Assembler::make_sharding_slots(Unit& unit) {
  if (!layout_.gathers || layout_.flat_buckets) return;
  const bool flat = layout_.flat_parameters;
  const Bytes whole = unit.parameters;
  // FSDP1 resizes the unsharded storage on its all-gather stream.
  unit.gathered = slot(whole, VramCategory::parameters, "gathered parameters",
                       flat ? Stream::all_gather : Stream::compute);
  Slot& gathered = program_.slots.back();
  // What is not resharded serves every micro-batch in flight.
  gathered.outlives_micro_batch = !unit.wrapped || !layout_.reshards;
  gathered.recorded = flat && unit.wrapped;
  unit.gather_buffer =
      slot(whole, VramCategory::communication, "all-gather buffer", Stream::all_gather);
  if (unit.trained == 0) return;
  if (mixes_unit(unit)) {
    unit.trained = own_elements(*unit.block);
  }
  // FSDP1: autograd's sum over the views of the flat parameter, then a cast; FSDP2: one copy-in.
  const bool casts = layout_.reduce != layout_.used;
  if (flat) {
    unit.flat_gradient =
        slot(bytes_of(unit.trained, layout_.used), VramCategory::gradients, "flat gradient");
    program_.slots.back().recorded = true;
  }
  if (!flat || casts) {
    // FSDP1 casts on its post-backward stream; foreach_reduce copies in where backward computes.
    unit.reduce_input = slot(bytes_of(unit.trained, layout_.reduce), VramCategory::communication,
                             "reduce-scatter input", flat ? Stream::reduce : Stream::compute);
  }
  if (layout_.reduce != layout_.gradient) {
    unit.reduced =
        slot(bytes_of(ceil_divide(unit.trained, layout_.gradient_shards), layout_.reduce),
             VramCategory::communication, "reduce-scatter output", Stream::reduce);
  }
}

// FSDP1 wraps unit by unit, the root last: a unit's parameters move to the card (_init_utils.py,
// _move_states_to_device), are joined in one flat tensor and let go, and the rank's shard is cloned
// from that (_flat_param.py, flatten_tensors and shard). What the last units leave is cached on the
// stream that computes, of no use to the unsharded parameters on theirs.
std::int32_t Assembler::flatten(std::vector<Event>& events, const model::Block& block) {
  std::vector<std::int32_t> originals;
  Bytes whole;
  for (const model::Weight& weight : block.weights) {
    if (!weight.tied_to.empty()) continue;
    for (const Piece& piece : pieces_of(layout_, weight)) {
      if (!piece.sharded) continue;
      const Bytes bytes = bytes_of(piece.numel, piece.dtype);
      whole += bytes;
      originals.push_back(slot(bytes, VramCategory::temporaries, weight.name));
      allocate(events, originals.back());
    }
  }
  const std::int32_t flat = slot(whole, VramCategory::temporaries, "flat parameter");
  allocate(events, flat);
  for (const std::int32_t original : originals) free(events, original);
  return flat;
}

void Assembler::add_flattened(Phase& phase) {
  model::Block root;
  for (const model::Segment& segment : graph_.segments) {
    const model::Block& front = segment.blocks.front();
    if (!is_layer(front)) {
      root.weights.insert(root.weights.end(), front.weights.begin(), front.weights.end());
      continue;
    }
    Body body{.layer = front.name, .repeat = segment.repeat, .events = {}};
    for (const model::Block& block : segment.blocks) {
      const std::int32_t flat = flatten(body.events, block);
      hold_parameters(body.events, block);
      free(body.events, flat);
    }
    phase.bodies.push_back(std::move(body));
  }
  if (root.weights.empty()) return;
  Body body{.layer = "root", .events = {}};
  const std::int32_t flat = flatten(body.events, root);
  hold_parameters(body.events, root);
  free(body.events, flat);
  phase.bodies.push_back(std::move(body));
}

// fully_shard() on the embedding and on the head, not on the model around them alone. What shares a
// weight with another block is gathered with the root.
bool Assembler::wraps_end(const model::Block& block) const {
  using EndUnits = Variants::EndUnits;
  const bool own = variants_.end_units == EndUnits::own ||
                   (variants_.end_units == EndUnits::own_when_all_train &&
                    job_.train.method == facts::Method::full);
  if (!own || layout_.flat_parameters || layout_.flat_buckets || block.weights.empty())
    return false;
  return std::ranges::none_of(block.weights, [this](const model::Weight& weight) {
    return !weight.tied_to.empty() || tied_elsewhere(weight.name);
  });
}

// FSDP1 gathers into the unit's own storage (torch/distributed/fsdp/_flat_param.py,
// _all_gather_flat_param): no buffer besides. Its backward gathers the next unit ahead, but not one
// whose forward ran without gradients (_needs_pre_backward_unshard is set where an output takes a
// hook): under reentrant checkpointing nothing is gathered ahead, nor was by default until PyTorch
// 2.0 (pull request 88428).
bool Assembler::has_gather_buffer(const Unit& unit, bool backward) const {
  if (unit.gather_buffer < 0) return false;
  const bool ends_backward = !unit.layer && unit.wrapped && unit.block->input.index < 0;
  if (backward && ends_backward) return false;  // nothing is left to gather ahead
  if (!layout_.flat_parameters) return true;
  const bool reentrant = job_.train.recompute.mode == facts::RecomputeMode::full &&
                         variants_.checkpoint == Checkpoint::reentrant;
  return backward && !reentrant && unit.wrapped && variants_.gathers_next;
}

// What arrived is copied out where the unit computes (_fsdp_collectives.py,
// foreach_all_gather_copy_out). XLA gathers into the operands themselves.
void Assembler::copy_out(std::vector<Event>& events, const Unit& unit) {
  if (unit.gather_buffer < 0 || layout_.flat_parameters || profile_.always_compiled) return;
  work(events, WorkKind::memory, 2 * unit.parameters, "copy_out");
}

// Gradients on their way into one buffer, where backward computes: FSDP1's autograd joins those of
// the views (SplitBackward), FSDP2 copies them by rank, in the reduction's type (chunk_cat).
void Assembler::copy_in(std::vector<Event>& events, const Unit& unit) {
  if (unit.trained == 0 || layout_.flat_buckets || profile_.always_compiled) return;
  const facts::DType written = layout_.flat_parameters ? layout_.used : layout_.reduce;
  work(events, WorkKind::memory,
       bytes_of(unit.trained, layout_.used) + bytes_of(unit.trained, written), "copy_in");
}

// FSDP2 lets go of a reduce-scatter's input when the next one needs its own. Before the head's
// there is none.
bool Assembler::holds_last_reduction(const Unit& unit) const {
  const bool head = !unit.layer && unit.block->input.index >= 0;
  return unit.reduce_input >= 0 && !layout_.flat_parameters && !head;
}

// Before a layer computes: its parameters are gathered.
void Assembler::open_layer(std::vector<Event>& events, Unit& unit, bool backward, bool reduces) {
  if (!layout_.gathers || !unit.wrapped) return;
  // In backward this buffer is the next unit's, gathered ahead: as large as this one's.
  if (has_gather_buffer(unit, backward)) allocate(events, unit.gather_buffer);
  if (backward && reduces && holds_last_reduction(unit)) {
    allocate(events, unit.reduce_input);  // of the unit before, still in flight
  }
  if (!backward || layout_.reshards) {
    fetch_parameters(events, unit);
    communicate(events, Collective::all_gather, unit.parameters, !variants_.sharding_waits,
                "all_gather", groups_.shards);
    if (unit.gathered >= 0) events.push_back({EventKind::ensure, unit.gathered});
    copy_out(events, unit);
  }
}

void Assembler::close_layer(std::vector<Event>& events, Unit& unit, bool backward, bool last) {
  if (!layout_.gathers || !unit.wrapped) return;
  const bool reduces = last || !sums_whole_gradients();
  if (backward && reduces && holds_last_reduction(unit)) free(events, unit.reduce_input);
  const bool done = backward && (last || job_.parallel.pipeline == 1);
  if (unit.gathered >= 0 && (done || layout_.reshards) && !(backward && stays_gathered(unit))) {
    free(events, unit.gathered);
  }
  if (!backward && has_gather_buffer(unit, backward)) free(events, unit.gather_buffer);
}

// Until PyTorch 2.1 the hook that reshards hung on the flat parameter's gradient: what has none
// stayed until the catch-all behind the backward pass (pytorch pull request 101982).
bool Assembler::stays_gathered(const Unit& unit) const {
  if (!variants_.keeps_frozen_units || !layout_.flat_parameters || mixes_unit(unit)) return false;
  return unit.wrapped && unit.trained < own_elements(*unit.block);
}

void Assembler::release_frozen_units(const Chunk& chunk, Phase& phase) {
  for (const Chain& chain : chunk.chains) {
    Body body;
    body.layer = chain.units.front().block->name;
    body.repeat = chain.repeat;
    for (const Unit& unit : chain.units) {
      if (unit.gathered >= 0 && stays_gathered(unit)) free(body.events, unit.gathered);
    }
    if (!body.events.empty()) phase.bodies.push_back(std::move(body));
  }
}

// FSDP1's flat parameter has a gradient for all of its elements, zeros where they are frozen.
bool Assembler::mixes_unit(const Unit& unit) const {
  return habits_.mixes_units && layout_.flat_parameters && unit.trained > 0;
}

// torch.distributed.pipelining (stage.py, backward_maybe_with_nosync) reduces behind the last
// micro-batch of a stage alone; until then FSDP2 sums whole gradients in the type of the reduction
// (_fsdp_param.py, to_accumulated_grad_if_needed), as it does wherever a loop calls
// set_requires_gradient_sync(False). FSDP1 does so under no_sync(), which Fabric and accelerate lay
// around all micro-batches but the last (_runtime_utils.py, _post_backward_hook).
bool Assembler::sums_whole_gradients() const {
  const bool of_tensors = variants_.accumulates_tensors_whole || job_.parallel.pipeline > 1;
  const bool asked = layout_.flat_parameters ? variants_.accumulates_whole : of_tensors;
  return layout_.gathers && !layout_.flat_buckets && asked && micro_batches() > 1;
}

// FSDP1: the flat gradient of this pass becomes the kept one, or is added to it.
void Assembler::add_flat_gradient(std::vector<Event>& events, Unit& unit) {
  allocate(events, unit.flat_gradient);
  for (std::int32_t gradient : unit.trace.gradients) {
    if (gradient >= 0) free(events, gradient);
  }
  if (unit.whole_gradient < 0) return;
  program_.gradients.push_back({unit.flat_gradient, unit.whole_gradient});
  events.push_back(
      {EventKind::keep_gradient, static_cast<std::int32_t>(program_.gradients.size()) - 1});
}

void Assembler::sum_whole_gradients(std::vector<Event>& events, Unit& unit) {
  const bool flat = unit.flat_gradient >= 0;
  if (unit.trained > 0 && unit.whole_gradient < 0) {
    unit.whole_gradient = slot(bytes_of(unit.trained, flat ? layout_.used : layout_.reduce),
                               VramCategory::gradients, "unsharded gradients");
    program_.slots.back().outlives_micro_batch = true;
  }
  if (flat) {
    add_flat_gradient(events, unit);
    if (unit.wrapped && has_gather_buffer(unit, true)) free(events, unit.gather_buffer);
    return;
  }
  if (unit.trained > 0) {
    events.push_back({EventKind::ensure, unit.whole_gradient});
    work(events, WorkKind::memory,
         bytes_of(unit.trained, layout_.used) + 2 * bytes_of(unit.trained, layout_.reduce),
         "accumulate_gradient");
  }
  for (std::int32_t gradient : unit.trace.gradients) {
    if (gradient >= 0) free(events, gradient);
  }
  if (unit.wrapped && has_gather_buffer(unit, true)) free(events, unit.gather_buffer);
}

// Gradients of the unit are reduced, scattered, and the whole ones freed.
void Assembler::reduce_sharded(std::vector<Event>& events, Unit& unit) {
  const bool flat = unit.flat_gradient >= 0;
  if (flat) add_flat_gradient(events, unit);
  if (unit.reduce_input >= 0) allocate(events, unit.reduce_input);
  copy_in(events, unit);
  for (std::int32_t gradient : unit.trace.gradients) {
    if (gradient >= 0 && !flat) free(events, gradient);
  }
  if (unit.whole_gradient >= 0) {
    free(events, unit.whole_gradient);
  } else if (flat) {
    free(events, unit.flat_gradient);
  }
  if (layout_.flat_buckets && unit.trained > 0) copy_by_rank(events);
  communicate(events, Collective::reduce_scatter, bytes_of(unit.trained, layout_.reduce),
              !variants_.sharding_waits, "reduce_scatter", groups_.shards);
  // Hybrid sharding: the shards are summed over the replicas.
  communicate(events, Collective::all_reduce,
              bytes_of(ceil_divide(unit.trained, layout_.gradient_shards), layout_.reduce), true,
              "all_reduce shards", groups_.across_shards);
  send_gradients_to_host(events, unit);
  if (layout_.flat_buckets) return;  // into the partition that exists since setup
  if (unit.reduced >= 0) allocate(events, unit.reduced);
  keep_shard(events, unit);
  if (unit.reduced >= 0) free(events, unit.reduced);
  if (unit.reduce_input >= 0) free(events, unit.reduce_input);
  if (unit.wrapped && has_gather_buffer(unit, true)) free(events, unit.gather_buffer);
}

// The reduced buffer, or a cast of it, on the stream of the reduction: the optimizer reads views.
void Assembler::keep_shard(std::vector<Event>& events, Unit& unit) {
  Bytes bytes;
  for (const model::Weight& weight : unit.block->weights) {
    if (!steps(weight) && !(mixes_unit(unit) && weight.tied_to.empty())) continue;
    const std::int64_t shards = shards_of(layout_, weight, layout_.gradient_shards);
    bytes += bytes_of(ceil_divide(model::elements(weight.shape), shards),
                      gradient_type(layout_, weight));
  }
  if (bytes == Bytes()) return;
  const std::int32_t fresh =
      slot(bytes, VramCategory::temporaries, "sharded gradient", Stream::reduce);
  allocate(events, fresh);
  if (layout_.on_host.gradients && !saves_shards()) {  // copied to the host, then let go of
    free(events, fresh);
    return;
  }
  if (!profile_.gradients_set_to_none) {  // added into what exists since setup
    free(events, fresh);
    return;
  }
  if (unit.sharded_gradient < 0) {
    unit.sharded_gradient =
        slot(bytes, VramCategory::gradients, "sharded gradient", Stream::reduce);
    program_.slots.back().outlives_micro_batch = !saves_shards();
  }
  program_.gradients.push_back({fresh, unit.sharded_gradient});
  events.push_back(
      {EventKind::keep_gradient, static_cast<std::int32_t>(program_.gradients.size()) - 1});
  if (!job_.train.optimizer.in_backward) return;
  for (const model::Weight& weight : unit.block->weights) {
    if (!steps(weight)) continue;
    for (std::int32_t index : step_weight(events, weight)) free(events, index);
  }
  free(events, unit.sharded_gradient);
}

// FSDP1 copies a shard to the host and keeps it beside (_runtime_utils.py,
// _accumulate_sharded_grad: _saved_grad_shard), until the whole backward pass is done
// (prepare_gradient_for_optim). fairscale's takes the copy's place (_post_reduction_hook).
bool Assembler::saves_shards() const {
  return layout_.on_host.gradients && layout_.flat_parameters && variants_.saves_shards;
}

void Assembler::release_saved_shards(const Chunk& chunk, Phase& phase) {
  if (!saves_shards()) return;
  for (const Chain& chain : chunk.chains) {
    Body body;
    body.layer = chain.units.front().block->name;
    body.repeat = chain.repeat;
    for (const Unit& unit : chain.units) {
      if (unit.sharded_gradient >= 0) free(body.events, unit.sharded_gradient);
    }
    if (!body.events.empty()) phase.bodies.push_back(std::move(body));
  }
}

void Assembler::gather_root(std::vector<Event>& events, Unit& unit) {
  if (unit.wrapped) return;
  fetch_parameters(events, unit);
  communicate(events, Collective::all_gather, unit.parameters, false, "all_gather root",
              groups_.shards);
  if (unit.gathered < 0) return;
  const bool buffer = has_gather_buffer(unit, false);
  if (buffer) allocate(events, unit.gather_buffer);
  events.push_back({EventKind::ensure, unit.gathered});
  copy_out(events, unit);
  if (buffer) free(events, unit.gather_buffer);
}

// [operators] root_unit: fully_shard(model, reshard_after_forward=True). Only without an argument
// is the root left gathered (fsdp/_fully_shard/_fsdp_state.py, _lazy_init:
// _auto_reshard_after_forward).
bool Assembler::reshards_root() const {
  return layout_.gathers && layout_.reshards && !layout_.flat_parameters && !layout_.flat_buckets &&
         variants_.reshards_root && job_.parallel.pipeline == 1;
}

void Assembler::release_root(std::vector<Event>& events, Unit& unit) {
  if (unit.wrapped || unit.gathered < 0) return;
  free(events, unit.gathered);
}

}  // namespace steelyard::step
