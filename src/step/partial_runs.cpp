#include "step/partial_runs.h"

#include <utility>

namespace steelyard::step {

// Operators of the part over these inputs.
std::vector<Tensor> PartialRuns::run_part(const RecomputedPart& part,
                                          const std::vector<Tensor>& inputs) {
  const bool again = tape_.recomputing();
  for (std::size_t i = 0; i < inputs.size(); ++i) handles_.place(part.inputs[i], inputs[i]);
  for (std::size_t i = part.first; i < part.last; ++i) static_cast<void>(handles_.run(i));
  std::vector<Tensor> outputs;
  for (model::TensorRef ref : part.outputs) outputs.push_back(handles_.tensor(ref));
  if (again) handles_.clear();
  return outputs;
}

void PartialRuns::run_recomputed(const RecomputedPart& part) {
  std::vector<Tensor> inputs;
  for (model::TensorRef ref : part.inputs) inputs.push_back(handles_.tensor(ref));
  const Part run = [this, &part](Tape&, const std::vector<Tensor>& given) {
    return run_part(part, given);
  };
  if (part.hook == 0) {
    Tensor result = recomputed(tape_, std::move(inputs), run, {part.trains, stops_early_});
    handles_.tensor(part.outputs.front()) = std::move(result);
    return;
  }
  DiscardedPart result(tape_, std::move(inputs), run);
  for (std::size_t i = 0; i < part.outputs.size(); ++i) {
    handles_.tensor(part.outputs[i]) = result.outputs()[i];
  }
  to_discard_.emplace(part.hook, std::move(result));
}

// Operators [first, last) have run.
void PartialRuns::discard_behind(std::size_t first, std::size_t last) {
  for (std::size_t i = first; i < last; ++i) {
    const auto waiting = to_discard_.find(i);
    if (waiting == to_discard_.end()) continue;
    waiting->second.discard(tape_, handles_.tensor(block_.operators[i].outputs.front()));
    to_discard_.erase(waiting);
  }
}

void PartialRuns::run() {
  auto part = parts_.begin();
  for (std::size_t i = 0; i < block_.operators.size();) {
    const std::size_t first = i;
    if (part != parts_.end() && part->first == i) {
      run_recomputed(*part);
      i = part++->last;
    } else if (handles_.run(i)) {
      ++i;
    } else {
      return;
    }
    discard_behind(first, i);
  }
}

}  // namespace steelyard::step
