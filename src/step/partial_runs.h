// The operators of a block in their order, those of recomputed modules together.
#pragma once

#include <functional>
#include <map>
#include <vector>

#include "step/block_trace.h"
#include "step/partial_recompute.h"
#include "step/recomputed_modules.h"

namespace steelyard::step {

// What the block's own run does with its tensors and operators.
struct BlockHandles {
  std::function<Tensor&(model::TensorRef)> tensor;
  std::function<void(model::TensorRef, const Tensor&)> place;  // shared ones for this block alone
  std::function<bool(std::size_t)> run;  // one operator; false when the rest of the block ran too
  std::function<void()> clear;           // lets go of all tensors
};

class PartialRuns {
 public:
  PartialRuns(const model::Block& block, const BlockOptions& options, Tape& tape,
              BlockHandles handles)
      : block_(block),
        stops_early_(options.variants.checkpoint == Checkpoint::early_stop),
        tape_(tape),
        handles_(std::move(handles)),
        parts_(recomputed_parts(block, options.recomputed_modules)) {}

  // All operators.
  void run();

 private:
  [[nodiscard]] std::vector<Tensor> run_part(const RecomputedPart& part,
                                             const std::vector<Tensor>& inputs);
  void run_recomputed(const RecomputedPart& part);
  void discard_behind(std::size_t first, std::size_t last);

  const model::Block& block_;
  bool stops_early_;
  Tape& tape_;
  BlockHandles handles_;
  std::vector<RecomputedPart> parts_;
  std::map<std::size_t, DiscardedPart> to_discard_;  // by the operator behind which it goes
};

}  // namespace steelyard::step
