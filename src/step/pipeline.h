// Pipeline parallel: which blocks a stage holds, and in which order it runs its micro-batches.
#pragma once

#include <cstdint>
#include <vector>

#include "base/error.h"
#include "facts/job.h"
#include "model/graph.h"
#include "step/program.h"

namespace steelyard::step {

class Workshop;

// The part of the model that one stage holds. With virtual stages it holds several runs of layers
// ("chunks") from different depths of the model.
struct Stage {
  std::int64_t index = 0;
  model::Graph graph;                          // all chunks, one behind the other
  std::vector<std::size_t> chunk_begins = {};  // index of each chunk's first segment; first: 0
  bool has_loss = true;
  // The first stage that holds the same layers, none of the model's ends among them; often itself.
  std::size_t like = 0;
};

// One entry per stage, from the embedding's to the loss's. A chunk that lacks the block that makes
// the shared tensors (rotary tables) makes its own. Errors: more chunks than layers, stage_layers
// that do not add up. `chunks`: layers of each chunk by depth, when an import says so. `once`:
// stages that are like an earlier one get no graph.
[[nodiscard]] Result<std::vector<Stage>> stages_of(const model::Graph& graph,
                                                   const facts::ParallelKeys& parallel,
                                                   const std::vector<std::int64_t>& chunks = {},
                                                   bool once = false);

// One forward or backward pass of a chunk over the next of its micro-batches.
struct Turn {
  PhaseKind kind = PhaseKind::forward;
  std::int32_t chunk = 0;
  bool last = false;   // of the chunk's backward passes in this step
  bool first = false;  // of its passes of this kind

  friend bool operator==(const Turn&, const Turn&) = default;
};

// Whether interleaved chunks can take turns: after as many micro-batches as a group has (0: as the
// pipeline has stages). A last group that is smaller than the pipeline would wait for itself
// (Megatron-LM, core/pipeline_parallel/schedules.py, forward_backward_pipelining_with_interleaving:
// refused there too).
[[nodiscard]] bool fills_groups(const facts::ParallelKeys& parallel, std::int64_t micro_batches,
                                std::int64_t group = 0);

// The order in which a stage takes its turns.
//   gpipe        all forward, then all backward
//   1f1b         as many forward as stages follow, then one forward and one backward in turn
//                (PipeDream-flush, arXiv 2006.09503)
//   interleaved  the same over `chunks` chunks in groups of `group` micro-batches (0: `stages`)
//                (Megatron-LM core/pipeline_parallel/schedules.py)
//   zero-bubble  as 1f1b: splitting backward moves time, not the activations' peak (ZB-H1)
[[nodiscard]] std::vector<Turn> turns_of(facts::Schedule schedule, std::int64_t stage,
                                         std::int64_t stages, std::int64_t chunks,
                                         std::int64_t micro_batches, std::int64_t group = 0);

// The most micro-batches of one chunk between their forward and their backward.
[[nodiscard]] std::int64_t in_flight(const std::vector<Turn>& turns);

// The most bytes between forward and backward, where a pass of chunk c leaves of_chunk[c]. Chunks
// reach their own most one after the other, so this is less than the sum of those.
[[nodiscard]] Bytes most_waiting(const std::vector<Turn>& turns,
                                 const std::vector<Bytes>& of_chunk);

// `count` turns from `first` on, `repeat` times in a row.
struct TurnRun {
  std::size_t first = 0, count = 1;
  std::int64_t repeat = 1;
};
// The turns as few repeated runs: a pipeline's steady state is one run.
[[nodiscard]] std::vector<TurnRun> runs_of(const std::vector<Turn>& turns, std::size_t period);

// A run of turns: those that differ, and their order where some come more than once (empty: each
// once, in their order).
struct TurnPass {
  std::int64_t repeat = 1;
  std::vector<Turn> turns;
  std::vector<std::int32_t> order;
};
struct TurnBook {
  std::vector<TurnPass> passes;
  std::int64_t in_flight = 1;
};
// All turns of a stage; its arguments are those of `turns_of`.
[[nodiscard]] TurnBook turn_book(facts::Schedule schedule, std::int64_t stage, std::int64_t stages,
                                 std::int64_t chunks, std::int64_t micro_batches,
                                 std::int64_t group = 0);
// The same, made once for all who share the workshop.
[[nodiscard]] const TurnBook& turn_book(Workshop& workshop, facts::Schedule schedule,
                                        std::int64_t stage, std::int64_t stages,
                                        std::int64_t chunks, std::int64_t micro_batches,
                                        std::int64_t group = 0);

}  // namespace steelyard::step
