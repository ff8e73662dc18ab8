// What writing checkpoints costs a step.
#pragma once

#include "facts/plan.h"

namespace steelyard::plan {

// How long the job stands still for one checkpoint, and how long the storage is busy with it.
struct SavingTime {
  Seconds blocked;
  Seconds written;
};

// Of one checkpoint of `plan.ram.checkpoint_bytes` to the storage the data lie on. `missing`: the
// figure of the machine that would have to be known, when the answer is nothing.
//   sync            rank 0 copies the whole state from its GPU and writes it
//   sharded-sync    every rank copies its own part; a node's parts share its storage
//   async           stands still for the copy alone; the next one waits until all is written
// Source: torch.save copies a tensor to the host and writes it before the next one
// (torch/serialization.py); torch.distributed.checkpoint stages, then writes in a thread
// (async_save), and a second save waits for the first.
[[nodiscard]] std::optional<SavingTime> saving_time(const facts::Plan& plan, std::string& missing);

// Spreads that over the steps between two checkpoints (pace.breakdown.checkpoint); every rate
// shrinks alike. Only where the job says how often it saves: published speeds are without, and a
// default must not slow a plan down. Otherwise a sentence says what one would cost.
void add_checkpoints(facts::Plan& plan);

// A step becomes longer: busy / share; the rates shrink by it.
void stretch_step(facts::PacePlan& pace, Ratio share);

}  // namespace steelyard::plan
