#include "step/recompute_plan.h"

#include <algorithm>

namespace steelyard::step {

namespace {

using facts::RecomputeMethod;
using facts::RecomputeMode;

model::TensorRef moved(model::TensorRef ref, std::int32_t by) {
  if (!ref.shared && ref.index >= 0) ref.index += by;
  return ref;
}

// Appends a layer that reads what `into` puts out.
void append_layer(model::Block& into, const model::Block& layer) {
  const auto tensors = static_cast<std::int32_t>(into.tensors.size());
  const auto weights = static_cast<std::int32_t>(into.weights.size());
  const model::TensorRef entry = into.output;
  into.weights.insert(into.weights.end(), layer.weights.begin(), layer.weights.end());
  into.tensors.insert(into.tensors.end(), layer.tensors.begin(), layer.tensors.end());
  for (model::Operator op : layer.operators) {
    for (model::TensorRef& ref : op.inputs) {
      const bool first = !ref.shared && ref.index == layer.input.index;
      ref = first ? entry : moved(ref, tensors);
    }
    for (model::TensorRef& ref : op.outputs) ref = moved(ref, tensors);
    for (std::int32_t& weight : op.weights) {
      if (weight >= 0) weight += weights;
    }
    into.operators.push_back(std::move(op));
  }
  into.output = moved(layer.output, tensors);
}

// How many times `period` elements repeat from `start` on.
template <class T>
std::size_t repeats_at(const std::vector<T>& list, std::size_t start, std::size_t period) {
  std::size_t same = period;
  while (start + same < list.size() && list[start + same] == list[start + same % period]) ++same;
  return start + period <= list.size() ? same / period : 0;
}

}  // namespace

Recompute RecomputePlan::recompute_of(std::int64_t layer) const {
  switch (keys_.mode) {
    case RecomputeMode::none: return Recompute::none;
    case RecomputeMode::selective: return Recompute::core_attention;
    case RecomputeMode::selective_op: return Recompute::operations;
    case RecomputeMode::full: break;
  }
  if (keys_.every) return (layer + 1) % *keys_.every == 0 ? Recompute::everything : Recompute::none;
  if (keys_.layers && keys_.method == RecomputeMethod::block && layer >= *keys_.layers) {
    return Recompute::none;
  }
  return Recompute::everything;
}

void RecomputePlan::start_chunk() {
  if (keys_.layers) seen_ = 0;
}

std::vector<RecomputePlan::Chunk> RecomputePlan::chunks_of(const model::Segment& segment) {
  const bool uniform = keys_.layers && keys_.method != RecomputeMethod::block;
  const auto together = static_cast<std::size_t>(uniform ? *keys_.layers : 1);
  std::vector<Chunk> chunks;
  for (std::int64_t r = 0; r < segment.repeat; ++r) {
    for (const model::Block& block : segment.blocks) {
      const Recompute recompute = recompute_of(seen_++);
      if (chunks.empty() || chunks.back().layers.size() == together) {
        chunks.push_back({{}, recompute});
      }
      chunks.back().layers.push_back(&block);
    }
  }
  return chunks;
}

LayerPart RecomputePlan::part_of(const Chunk& chunk) {
  if (chunk.layers.size() == 1) return {chunk.layers.front(), chunk.recompute};
  model::Block& joined = joined_.emplace_back(*chunk.layers.front());
  for (std::size_t i = 1; i < chunk.layers.size(); ++i) append_layer(joined, *chunk.layers[i]);
  return {&joined, chunk.recompute};
}

std::vector<LayerRun> RecomputePlan::runs_of(const model::Segment& segment) {
  const std::vector<Chunk> chunks = chunks_of(segment);
  const auto longest = segment.blocks.size() * static_cast<std::size_t>(keys_.every.value_or(1));
  std::vector<LayerRun> runs;
  for (std::size_t at = 0; at < chunks.size();) {
    // The period that covers most from here; the shortest of equals.
    std::size_t period = 1;
    for (std::size_t p = 1; p <= std::min(longest, chunks.size() - at); ++p) {
      if (p * repeats_at(chunks, at, p) > period * repeats_at(chunks, at, period)) period = p;
    }
    LayerRun run;
    const std::size_t times = repeats_at(chunks, at, period);
    run.repeat = static_cast<std::int64_t>(times);
    for (std::size_t i = 0; i < period; ++i) run.parts.push_back(part_of(chunks[at + i]));
    runs.push_back(std::move(run));
    at += period * times;
  }
  return runs;
}

}  // namespace steelyard::step
