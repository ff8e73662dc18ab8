// Parts of a layer that forward runs without a graph and backward runs again, as Megatron-LM's
// selective recomputation does by module.
//
// Source: NVIDIA/Megatron-LM d98e8a64, megatron/core/tensor_parallel/random.py
// (CheckpointFunction, CheckpointWithoutOutput).
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "step/tape.h"

namespace steelyard::step {

// Runs the part; called in forward with what the caller has, in backward with leaves in its place.
using Part = std::function<std::vector<Tensor>(Tape&, const std::vector<Tensor>& inputs)>;

struct PartOptions {
  bool trains = false;  // it has weights that do, so that it has a graph whatever its inputs are
  // torch.utils.checkpoint without reentrance: the second run ends where the last saved tensor is
  // known, and nobody holds its result.
  bool stops_early = false;
};

// The inputs are kept. In backward the part runs again, and its result is held while its own graph
// runs backwards; autocast's casts live as long as the run.
[[nodiscard]] Tensor recomputed(Tape& tape, std::vector<Tensor> inputs, const Part& part,
                                PartOptions options = {});

// A part whose results are let go as well, although what comes behind has saved them: it runs again
// as soon as the gradient of a later tensor is known, and what was saved is there once more.
class DiscardedPart {
 public:
  DiscardedPart(Tape& tape, std::vector<Tensor> inputs, Part part);

  [[nodiscard]] const std::vector<Tensor>& outputs() const { return outputs_; }
  // Lets the results go; `hook` is the later tensor.
  void discard(Tape& tape, Tensor& hook);

 private:
  struct Again;
  std::vector<Tensor> outputs_;
  std::shared_ptr<Again> again_;
};

}  // namespace steelyard::step
