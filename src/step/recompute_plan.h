// Which layers are recomputed, and together with which: train.recompute over the layers of a rank.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "facts/job.h"
#include "model/graph.h"
#include "step/block_trace.h"

namespace steelyard::step {

// A layer, or a chunk of layers that are recomputed as one.
struct LayerPart {
  const model::Block* block = nullptr;
  Recompute recompute = Recompute::none;
};

// Parts that repeat as a sequence.
struct LayerRun {
  std::int64_t repeat = 1;
  std::vector<LayerPart> parts;
};

// Sources: torchtitan/distributed/activation_checkpoint.py (every n-th layer: the n-th, the 2n-th
// ...), Megatron-LM's transformer_block.py, _checkpointed_forward (uniform: chunks of n layers, of
// which the inputs are kept; block: the first n layers of the stage).
class RecomputePlan {
 public:
  explicit RecomputePlan(const facts::RecomputeKeys& keys) : keys_(keys) {}

  // The layers of another chunk of the stage follow: Megatron counts in each.
  void start_chunk();
  // The layers of one segment. Called in the order of the segments: layers are counted through.
  // The parts are valid as long as the plan.
  [[nodiscard]] std::vector<LayerRun> runs_of(const model::Segment& segment);

 private:
  struct Chunk {
    std::vector<const model::Block*> layers;
    Recompute recompute = Recompute::none;
    bool operator==(const Chunk&) const = default;
  };
  [[nodiscard]] std::vector<Chunk> chunks_of(const model::Segment& segment);
  [[nodiscard]] Recompute recompute_of(std::int64_t layer) const;  // counted from 0
  [[nodiscard]] LayerPart part_of(const Chunk& chunk);

  facts::RecomputeKeys keys_;
  std::int64_t seen_ = 0;            // layers of earlier segments
  std::deque<model::Block> joined_;  // chunks of several layers; addresses stay
};

}  // namespace steelyard::step
