#include "step/swap.h"

#include <algorithm>
#include <utility>

#include "step/assembler.h"
#include "step/weight_storage.h"

namespace steelyard::step {

using facts::OffloadTo;

std::int64_t sub_groups(std::int64_t partition) {
  return std::max<std::int64_t>(1, ceil_divide(partition, kSubGroup));
}

bool swaps_trained(std::int64_t partition) {
  return partition > kSubGroup;
}

Ratio written_in_backward(std::int64_t partition) {
  if (partition <= kSubGroup) return Ratio(0.0);
  return Ratio(1.0 - static_cast<double>(kSubGroup) / static_cast<double>(partition));
}

Bytes of_one_sub_group(Bytes bytes, std::int64_t sub_groups) {
  return ceil_divide(bytes, sub_groups);
}

namespace {

void add_if_swapped(Bytes& sum, Bytes piece) {
  if (piece.value() >= kLeastSwapped) sum += piece;
}

}  // namespace

// The parameters of a block that lie on the drive, this rank's part of them.
Bytes Assembler::swapped_parameters(const model::Block& block, bool only_trained) const {
  Bytes sum;
  if (job_.offload.parameters != OffloadTo::nvme) return sum;
  const bool trained = swaps_trained(partition_elements());
  for (const model::Weight& weight : block.weights) {
    const bool counts = weight.trains ? trained : !only_trained;
    if (!weight.tied_to.empty() || !counts) continue;
    const std::int64_t shards = shards_of(layout_, weight, layout_.parameter_shards);
    add_if_swapped(sum, ceil_divide(gathered_bytes(layout_, weight), shards));
  }
  return sum;
}

// Gradients in the stepped type, this rank's part.
Bytes Assembler::swapped_gradients(const model::Block& block) const {
  Bytes sum;
  if (job_.offload.optimizer != OffloadTo::nvme) return sum;
  for (const model::Weight& weight : block.weights) {
    if (!steps(weight)) continue;
    const std::int64_t shards = shards_of(layout_, weight, layout_.gradient_shards);
    add_if_swapped(sum,
                   bytes_of(ceil_divide(model::elements(weight.shape), shards), layout_.stepped));
  }
  return sum;
}

void Assembler::drive(std::vector<Event>& events, WorkKind kind, Bytes bytes, std::string_view what,
                      bool beside_host) {
  if (bytes == Bytes()) return;
  work(events, kind, bytes, what);
  program_.work.back().beside_host = beside_host;
}

void Assembler::swap_gradients_out(std::vector<Event>& events, const Unit& unit) {
  const Bytes all = swapped_gradients(*unit.block);
  if (all == Bytes()) return;
  drive(events, WorkKind::drive_write, all * written_in_backward(partition_elements()),
        "gradients to the drive");
}

// New parameters go where they lie, one sub-group at a time: the pool that they leave from is
// written before the next one is stepped (utils.py, SwapBufferPool.swap_out).
void Assembler::swap_parameters_out(Phase& phase) {
  Body body;
  body.layer = "parameters";
  Bytes bytes;
  for (const model::Segment& segment : graph_.segments) {
    for (const model::Block& block : segment.blocks) {
      bytes += swapped_parameters(block, true) * segment.repeat;
    }
  }
  if (bytes == Bytes()) return;
  drive(body.events, WorkKind::drive_write, bytes, "parameters to the drive");
  phase.bodies.push_back(std::move(body));
}

// Sub-group by sub-group: states and gradients come, the host steps, states leave.
// Without offload.pipelined one waits for the other (partitioned_optimizer_swapper.py); with it the
// drive reads the next and writes the last sub-group while the host steps (pipelined_optimizer_
// swapper.py): one drive does both, so their times add up.
void Assembler::step_from_drive(Phase& phase) {
  const std::int64_t numel = partition_elements();
  const std::int64_t groups = sub_groups(numel);
  Bytes gradients;
  for (const model::Segment& segment : graph_.segments) {
    for (const model::Block& block : segment.blocks) {
      gradients += swapped_gradients(block) * segment.repeat;
    }
  }
  const Bytes states =
      bytes_of(numel, layout_.stepped) +
      layout_.optimizer.states * state_bytes(layout_.optimizer, numel, layout_.optimizer.state);
  const Bytes rest = gradients - gradients * written_in_backward(numel);
  const Bytes read = states + gradients;
  Body first, body, last;
  first.layer = body.layer = last.layer = "optimizer";
  drive(first.events, WorkKind::drive_write, rest, "gradients to the drive");
  const bool overlaps = job_.offload.pipelined && groups > 1;
  const Bytes ahead = overlaps ? of_one_sub_group(read, groups) : read;
  const Bytes behind = overlaps ? of_one_sub_group(states, groups) : states;
  drive(first.events, WorkKind::drive_read, ahead, "states from the drive");
  host_step(body.events, numel);
  drive(body.events, WorkKind::drive_read, read - ahead, "states from the drive", true);
  drive(body.events, WorkKind::drive_write, states - behind, "states to the drive", true);
  drive(last.events, WorkKind::drive_write, behind, "states to the drive");
  if (!layout_.on_host.parameters) {
    transfer(last.events, bytes_of(numel, layout_.parameter), "parameters to the GPU");
  }
  for (Body* each : {&first, &body, &last}) phase.bodies.push_back(std::move(*each));
}

}  // namespace steelyard::step
