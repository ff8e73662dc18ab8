// States in host memory: what crosses the host link for them, and the step that the host's
// processors take (ZeRO-Offload, arXiv:2101.06840, sections 4 and 5; FSDP's CPUOffloadPolicy).
#include <algorithm>

#include "step/assembler.h"
#include "step/host_rows.h"
#include "step/weight_storage.h"

namespace steelyard::step {

void Assembler::transfer(std::vector<Event>& events, Bytes bytes, std::string_view what) {
  if (bytes > Bytes()) work(events, WorkKind::transfer, bytes, what);
}

// This rank's part of a unit's parameters comes to the GPU as it is held, and is cast there to what
// is gathered (FSDP1: _flat_param.py, _use_low_precision_shard; FSDP2: _fsdp_param.py,
// all_gather_inputs; fairscale: _cast_fp32_param_shards_to_fp16).
void Assembler::fetch_parameters(std::vector<Event>& events, const Unit& unit) {
  if (!layout_.on_host.parameters) return;
  Bytes held;
  for (const model::Weight& weight : unit.block->weights) {
    if (!weight.tied_to.empty()) continue;
    held += weight.quantized ? gathered_bytes(layout_, weight) : held_bytes(layout_, weight);
  }
  const Bytes part(ceil_divide(held.value(), layout_.parameter_shards));
  drive(events, WorkKind::drive_read, swapped_parameters(*unit.block), "parameters from the drive");
  transfer(events, part, "parameters from the host");
}

void Assembler::send_gradients_to_host(std::vector<Event>& events, const Unit& unit) {
  if (!layout_.on_host.gradients) return;
  const std::int64_t part = ceil_divide(unit.trained, layout_.gradient_shards);
  transfer(events, bytes_of(part, layout_.gradient), "gradients to the host");
}

// What forward saves goes to the host beside its layer and comes back beside the layer's backward
// pass (torchtune's OffloadActivations copies on a stream of its own).
void Assembler::send_activations_to_host(Chunk& chunk) {
  for (Chain& chain : chunk.chains) {
    for (Unit& unit : chain.units) {
      const Bytes saved = unit.trace.offloaded;
      chunk.offloaded += chain.repeat * saved;
      transfer(unit.trace.forward, saved, kActivationsToHost);
      transfer(unit.trace.backward, saved, "activations from the host");
    }
  }
}

// Without sharding a gradient leaves as soon as it is complete, as under a step in backward.
bool Assembler::gradients_leave_at_once() const {
  return layout_.on_host.gradients && !layout_.gathers && !layout_.flat_buckets;
}

// What a micro-batch looks up in tables on the host, before the operators that read it.
void Assembler::fetch_rows(std::vector<Event>& events, const Unit& unit) {
  const HostRows rows = host_rows(*unit.block, job_.offload, groups_.replicas.ranks);
  if (rows.read_there > 0) {
    work(events, WorkKind::host, bytes_of(rows.read_there, layout_.used), "tables on the host");
  }
  if (rows.fetched > 0) {
    work(events, WorkKind::fetch, bytes_of(rows.fetched, layout_.used), "rows from the host");
  }
}

// The gradients of what the host looked up, behind the operators that make them.
void Assembler::return_rows(std::vector<Event>& events, const Unit& unit) {
  const HostRows rows = host_rows(*unit.block, job_.offload, groups_.replicas.ranks);
  if (rows.returned == 0) return;
  work(events, WorkKind::fetch, bytes_of(rows.returned, layout_.used),
       "gradients of rows to the host");
}

// Rows of a table in host memory that were looked up, and their states, are read and written once.
// The link carries both ways at once. A cached row itself is on the GPU, and goes back when another
// takes its place, while that one comes (embedding_placement.h).
void Assembler::step_host_rows(std::vector<Event>& events, const model::Weight& weight) {
  if (weight.host_elements == 0) return;
  const std::int64_t distinct = distinct_elements(graph_, weight, groups_.replicas.ranks);
  const std::int64_t states = layout_.optimizer.states;
  const std::int64_t each = job_.offload.embeddings == facts::EmbeddingOffload::uvm_caching
                                ? states
                                : checked_add(states, 1);
  const Bytes one_way = bytes_of(checked_multiply(distinct, each), layout_.stepped);
  if (one_way == Bytes()) return;
  if (job_.offload.embeddings == facts::EmbeddingOffload::cpu) {
    work(events, WorkKind::host, 2 * one_way, "rows stepped on the host");
  } else {
    work(events, WorkKind::fetch, one_way, "rows stepped over the link");
  }
}

void Assembler::host_step(std::vector<Event>& events, std::int64_t numel) {
  work(events, WorkKind::host, bytes_of(numel, layout_.stepped) * Ratio(host_passes()),
       "optimizer on the host");
}

// New parameters return to where they lie.
void Assembler::step_on_host(Phase& phase) {
  if (job_.offload.optimizer == facts::OffloadTo::nvme) {
    step_from_drive(phase);
    return;
  }
  const std::int64_t numel = partition_elements();
  Body body;
  body.layer = "optimizer";
  if (!layout_.on_host.gradients) {
    transfer(body.events, bytes_of(numel, layout_.gradient), "gradients to the host");
  }
  host_step(body.events, numel);
  if (!layout_.on_host.parameters) {
    transfer(body.events, bytes_of(numel, layout_.parameter), "parameters to the GPU");
  }
  phase.bodies.push_back(std::move(body));
}

// DeepSpeed adds a further micro-batch's gradient to the host's through a buffer of the largest
// parameter (stage_1_and_2.py, temp_grad_buffer_for_gpu_offload).
void Assembler::add_gradient_relay(std::vector<Event>& events) {
  if (!layout_.flat_buckets || layout_.gathers || !layout_.on_host.optimizer) return;
  std::int64_t largest = 0;
  for (const model::Segment& segment : graph_.segments) {
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        if (steps(weight)) largest = std::max(largest, model::elements(weight.shape));
      }
    }
  }
  if (largest == 0) return;
  allocate(events, slot(bytes_of(largest, layout_.gradient), facts::VramCategory::communication,
                        "gradients on their way to the host"));
}

}  // namespace steelyard::step
