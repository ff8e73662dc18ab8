// What a stage of torch.distributed.pipelining keeps of every micro-batch of a step
// (torch/distributed/pipelining/stage.py, schedules.py; which version lets go of what is data:
// catalog/frameworks/pytorch.toml).
#include <utility>

#include "step/assembler.h"

namespace steelyard::step {

using facts::VramCategory;

// DeepSpeed has an engine of its own.
bool Assembler::torch_pipeline() const {
  return job_.parallel.pipeline > 1 && !engine_pipeline();
}

void Assembler::keep_for_the_step(Chunk& chunk) {
  if (profile_.pipeline_keeps_buffers) {
    if (chunk.received >= 0) add_receive_buffer(chunk.received, "buffer for activations");
    if (chunk.received_gradient >= 0) {
      add_receive_buffer(chunk.received_gradient, "buffer for gradients");
    }
  }
  // Autograd leaves the gradient in the buffer's `.grad`, whatever was sent.
  if (profile_.pipeline_keeps_gradients && chunk.sent_gradient >= 0) {
    stay(chunk, chunk.sent_gradient);
  }
  if (profile_.pipeline_keeps_outputs && chunk.sent >= 0) stay(chunk, chunk.sent);
  if (!profile_.pipeline_returns_logits || !chunk.has_loss) return;
  const auto bytes = [this](std::int32_t index) {
    return program_.slots[static_cast<std::size_t>(index)].bytes;
  };
  // Logits and loss: the stage's output is the larger of them.
  for (const Event& event : chunk.chains.back().units.back().trace.end_of_step) {
    if (event.kind != EventKind::free) continue;
    stay(chunk, event.index);
    if (chunk.logits < 0 || bytes(event.index) > bytes(chunk.logits)) chunk.logits = event.index;
  }
}

// _create_act_recv_info, _create_grad_recv_info: before the first forward, for every micro-batch.
// What is received lies in the buffer; the stage's own name for it has no bytes.
void Assembler::add_receive_buffer(std::int32_t& received, std::string_view what) {
  const Bytes bytes = program_.slots[static_cast<std::size_t>(received)].bytes;
  const std::int32_t buffer = slot(bytes, VramCategory::activations, what);
  program_.slots.back().outlives_micro_batch = true;
  Body body;
  body.layer = "stage border";
  body.repeat = micro_batches();
  allocate(body.events, buffer);
  program_.setup.push_back({1, {{PhaseKind::setup, {std::move(body)}}}});
  received = slot(Bytes(), VramCategory::activations, what);
}

void Assembler::stay(Chunk& chunk, std::int32_t index) {
  Slot& its = program_.slots[static_cast<std::size_t>(index)];
  its.outlives_micro_batch = true;
  its.shared = true;
  chunk.for_the_step.push_back(index);
}

// schedules.py, _merge_outputs: what step() returns is joined once more.
void Assembler::merge_logits(const Chunk& chunk) {
  if (chunk.logits < 0) return;
  Phase phase{PhaseKind::reduction, {}};
  const Bytes one = program_.slots[static_cast<std::size_t>(chunk.logits)].bytes;
  Body body;
  body.layer = "outputs";
  const std::int32_t merged =
      slot(one * micro_batches(), VramCategory::activations, "outputs merged");
  allocate(body.events, merged);
  free(body.events, merged);
  phase.bodies.push_back(std::move(body));
  program_.step.push_back({1, {std::move(phase)}});
}

// clear_runtime_states, when the next step() begins.
void Assembler::end_schedule(Phase& phase) const {
  for (const Chunk& chunk : chunks_) {
    for (const std::int32_t index : chunk.for_the_step) {
      Body body;
      body.layer = "stage border";
      body.repeat = micro_batches();
      body.events.push_back({EventKind::free, index});
      phase.bodies.push_back(std::move(body));
    }
  }
}

}  // namespace steelyard::step
