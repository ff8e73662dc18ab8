// What crosses the borders between pipeline stages, and the order of a stage's passes.
#include <algorithm>
#include <string>
#include <utility>

#include "step/assembler.h"

namespace steelyard::step {

namespace {

using facts::VramCategory;

// Bytes of the first tensor that the events adopt, or the last that they hand over.
Bytes adopted_bytes(const Program& program, const std::vector<Event>& events) {
  for (const Event& event : events) {
    if (event.kind == EventKind::adopt) {
      return program.slots[static_cast<std::size_t>(event.index)].bytes;
    }
  }
  return {};
}

Bytes carried_bytes(const Program& program, const std::vector<Event>& events) {
  for (auto event = events.rbegin(); event != events.rend(); ++event) {
    if (event->kind == EventKind::carry) {
      return program.slots[static_cast<std::size_t>(event->index)].bytes;
    }
  }
  return {};
}

}  // namespace

// A chunk that does not begin with the embedding receives its input from the stage before it and
// sends the gradient back; one that does not end with the loss the other way round.
void Assembler::find_borders(Chunk& chunk) {
  const auto layer = std::find_if(chunk.chains.begin(), chunk.chains.end(), [](const Chain& chain) {
    return chain.units.front().block->input.index >= 0;
  });
  const bool has_embedding = !chunk.chains.front().units.front().block->weights.empty() &&
                             chunk.chains.front().units.front().block->input.index < 0;
  if (!has_embedding && layer != chunk.chains.end()) {
    const BlockTrace& first = layer->units.front().trace;
    const Bytes in = adopted_bytes(program_, first.forward);
    chunk.received = slot(in, VramCategory::activations, "received activations");
    chunk.sent_gradient =
        slot(carried_bytes(program_, first.backward), VramCategory::temporaries, "sent gradient");
    chunk.received_bytes = in;
    if (profile_.pipeline_holds_inputs) hold_inputs(chunk);
  }
  defer_head_gradients(chunk);
  if (!chunk.has_loss) {
    const BlockTrace& last = chunk.chains.back().units.back().trace;
    const Bytes out = carried_bytes(program_, last.forward);
    chunk.sent = slot(out, VramCategory::activations, "sent activations");
    chunk.received_gradient_bytes = adopted_bytes(program_, last.backward);
    chunk.received_gradient =
        slot(chunk.received_gradient_bytes, VramCategory::temporaries, "received gradient");
    if (engine_pipeline()) split_output(chunk);
  }
  if (torch_pipeline()) keep_for_the_step(chunk);
}

// DeepSpeed's PipelineEngine, which goes with its ZeRO stage 1, passes the rank's part of a border
// tensor on where ranks share a layer (deepspeed/runtime/pipe/engine.py, pipe_partitioned and
// grad_partitioned, on by default; config.py, get_pipeline_config).
bool Assembler::engine_pipeline() const {
  return layout_.flat_buckets && !layout_.gathers && job_.parallel.pipeline > 1;
}

// The output is whole on the rank until its backward pass is done.
bool Assembler::keeps_output(const Chunk& chunk) const {
  if (chunk.sent < 0 || chunk.sent_part >= 0) return false;
  return engine_pipeline() || !profile_.pipeline_releases_outputs;
}

void Assembler::split_output(Chunk& chunk) {
  if (groups_.tensor.ranks == 1) return;
  const Bytes whole = program_.slots[static_cast<std::size_t>(chunk.sent)].bytes;
  chunk.sent_part = slot(ceil_divide(whole, groups_.tensor.ranks), VramCategory::activations,
                         "part of the sent activations");
  chunk.gathered = slot(whole, VramCategory::temporaries, "sent activations gathered");
  chunk.rebuilt = slot(whole, VramCategory::temporaries, "sent activations again");
}

// _exec_forward_pass: the part is cloned, the whole tensor loses its data.
void Assembler::send_output(Chunk& chunk, Phase& phase) {
  const bool in_parts = chunk.sent_part >= 0;
  send(phase, chunk.sent, "send activations", !in_parts && !keeps_output(chunk));
  if (!in_parts) return;
  allocate(phase.bodies.back().events, chunk.sent_part);
  free(phase.bodies.back().events, chunk.sent);
}

// _exec_backward_pass: PartitionedTensor.full() gathers the output into a buffer that it clones;
// the clone stays until the backward pass is done.
void Assembler::rebuild_output(Chunk& chunk, Phase& phase) {
  if (chunk.rebuilt < 0) return;
  Body body;
  body.layer = "stage border";
  allocate(body.events, chunk.gathered);
  allocate(body.events, chunk.rebuilt);
  free(body.events, chunk.gathered);
  phase.bodies.push_back(std::move(body));
}

// Between steps a chunk still has the input and its gradient of the last micro-batch.
void Assembler::hold_inputs(Chunk& chunk) {
  const Bytes in = program_.slots[static_cast<std::size_t>(chunk.received)].bytes;
  const Bytes gradient = program_.slots[static_cast<std::size_t>(chunk.sent_gradient)].bytes;
  chunk.held_input = slot(in, VramCategory::activations, "last input");
  chunk.held_gradient = slot(gradient, VramCategory::activations, "gradient of the last input");
  Body body;
  body.layer = "stage border";
  for (const std::int32_t index : {chunk.held_input, chunk.held_gradient}) {
    program_.slots[static_cast<std::size_t>(index)].outlives_micro_batch = true;
    allocate(body.events, index);  // as after a step: what the first forward takes the place of
  }
  program_.setup.push_back({1, {{PhaseKind::setup, {std::move(body)}}}});
}

// Kept from the first micro-batches on: those beyond the limit are not deferred.
void Assembler::defer_head_gradients(Chunk& chunk) {
  if (!chunk.has_loss || !job_.megatron || !job_.megatron->deferred_head_gradients) return;
  const std::int64_t limit = *job_.megatron->deferred_head_gradients;
  const std::int64_t others = micro_batches() - 1;
  const std::int64_t count = limit > 0 ? std::min(limit, others) : others;
  const model::Block& head = graph_.segments.back().blocks.back();
  const auto loss = std::find_if(
      head.operators.begin(), head.operators.end(),
      [](const model::Operator& op) { return op.kind == model::OperatorKind::causal_lm_loss; });
  if (loss == head.operators.end()) return;
  const auto logits = static_cast<std::size_t>(loss->inputs[0].index);
  const Bytes bytes =
      bytes_of(model::elements(head.tensors[logits].shape), layout_.arithmetic.compute);
  for (std::int64_t i = 0; i < count; ++i) {
    chunk.deferred.push_back(slot(bytes, VramCategory::temporaries, "deferred gradient of logits"));
    program_.slots.back().outlives_micro_batch = true;
  }
}

// [operators] pipeline_transfers = "overlapped": with several chunks a stage asks for the next
// chunk's input before it computes this one (Megatron-LM, schedules.py, overlap_p2p_comm).
void Assembler::receive(Phase& phase, std::int32_t index, Bytes bytes, std::string_view what) {
  Body body;
  body.layer = "stage border";
  allocate(body.events, index);
  const auto word = profile_.operators.find("pipeline_transfers");
  const bool ahead =
      chunks_.size() > 1 && word != profile_.operators.end() && word->second == "overlapped";
  communicate(body.events, Collective::send, bytes, ahead, what, groups_.neighbours);
  body.events.push_back({EventKind::carry, index});
  phase.bodies.push_back(std::move(body));
}

// The receiver waits; a sender goes on, so the time is counted there.
void Assembler::send(Phase& phase, std::int32_t index, std::string_view what, bool release) {
  Body body;
  body.layer = "stage border";
  body.events.push_back({EventKind::adopt, index});
  communicate(body.events, Collective::send, program_.slots[static_cast<std::size_t>(index)].bytes,
              true, what, groups_.neighbours);
  if (release) free(body.events, index);
  phase.bodies.push_back(std::move(body));
}

Bytes Assembler::waiting_on_the_host() const {
  std::vector<Bytes> of_chunk;
  for (const Chunk& chunk : chunks_) of_chunk.push_back(chunk.offloaded);
  if (std::count(of_chunk.begin(), of_chunk.end(), Bytes()) == std::ssize(of_chunk)) return {};
  const facts::ParallelKeys& parallel = job_.parallel;
  const std::int64_t group = job_.megatron ? job_.megatron->micro_batch_group : 0;
  return most_waiting(turns_of(parallel.schedule, stage_.index, parallel.pipeline,
                               std::ssize(chunks_), micro_batches(), group),
                      of_chunk);
}

void Assembler::add_turns() {
  const facts::ParallelKeys& parallel = job_.parallel;
  const auto count = static_cast<std::int64_t>(chunks_.size());
  const std::int64_t group = job_.megatron ? job_.megatron->micro_batch_group : 0;
  TurnBook own;
  if (workshop_ == nullptr) {
    own = turn_book(parallel.schedule, stage_.index, parallel.pipeline, count, micro_batches(),
                    group);
  }
  const TurnBook& book = workshop_ == nullptr
                             ? own
                             : turn_book(*workshop_, parallel.schedule, stage_.index,
                                         parallel.pipeline, count, micro_batches(), group);
  program_.in_flight = book.in_flight;
  program_.stages = parallel.pipeline;
  program_.chunks = count;
  program_.micro_batches = micro_batches();
  for (const TurnPass& pass : book.passes) program_.step.push_back(pass_of(pass));
  if (torch_pipeline() && profile_.pipeline_returns_logits) {
    for (const Chunk& chunk : chunks_) merge_logits(chunk);
  }
}

// Turns that are alike are one phase.
Pass Assembler::pass_of(const TurnPass& from) {
  Pass pass;
  pass.repeat = from.repeat;
  pass.order = from.order;
  pass.phases.reserve(from.turns.size());
  for (const Turn& turn : from.turns) {
    Chunk& chunk = chunks_[static_cast<std::size_t>(turn.chunk)];
    pass.phases.push_back(turn.kind == PhaseKind::forward ? forward_phase(chunk, turn.first)
                                                          : backward_phase(chunk, turn));
  }
  return pass;
}

}  // namespace steelyard::step
