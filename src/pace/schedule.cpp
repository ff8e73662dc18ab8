#include "pace/schedule.h"

#include <algorithm>
#include <deque>

#include "base/quantity.h"
#include "step/pipeline.h"

namespace steelyard::pace {
namespace {

enum class Part : std::uint8_t { forward, backward, weights };

struct Move {
  Part part = Part::forward;
  std::int32_t chunk = 0;
};

// ZB-H1 (arXiv 2401.10241, section 2.2): as 1F1B, but gradients of weights wait for as many
// micro-batches as the stage has stages before it, and fill the gaps of the last backward passes.
// No stage holds more than under 1F1B.
std::vector<Move> zero_bubble(const std::vector<step::Turn>& turns, std::int64_t stage,
                              std::int64_t stages) {
  std::vector<Move> moves;
  const auto backwards = std::count_if(turns.begin(), turns.end(), [](const step::Turn& turn) {
    return turn.kind == step::PhaseKind::backward;
  });
  std::int64_t pending = 0, done = 0;
  for (const step::Turn& turn : turns) {
    if (turn.kind == step::PhaseKind::forward) {
      moves.push_back({Part::forward, turn.chunk});
      continue;
    }
    moves.push_back({Part::backward, turn.chunk});
    ++pending;
    const bool ends = ++done > backwards - (stages - 1 - stage);
    if (pending <= stage && !ends) continue;
    moves.push_back({Part::weights, turn.chunk});
    --pending;
  }
  moves.resize(moves.size() + static_cast<std::size_t>(pending), {Part::weights, 0});
  return moves;
}

class Player {
 public:
  explicit Player(const Pipeline& pipeline)
      : pipeline_(pipeline),
        count_(std::ssize(pipeline.stages)),
        splits_(pipeline.schedule == facts::Schedule::zero_bubble && pipeline.chunks == 1),
        stages_(pipeline.stages.size()) {
    const std::size_t passes =
        static_cast<std::size_t>(count_ * pipeline.chunks * pipeline.micro_batches);
    ends_[0].resize(passes, -1.0);
    ends_[1].resize(passes, -1.0);
    for (std::int64_t stage = 0; stage < count_; ++stage) prepare(stage);
  }

  [[nodiscard]] double play() {
    for (bool moved = true; moved;) {
      moved = false;
      for (std::int64_t stage = 0; stage < count_; ++stage) moved |= advance(stage);
    }
    double last = 0.0;
    for (const Stage& stage : stages_) last = std::max(last, stage.free);
    return last;
  }

 private:
  struct Stage {
    std::vector<Move> moves;
    std::size_t next = 0;
    double free = 0.0;
    std::vector<std::int64_t> batches[2];  // done by chunk, forward and backward
  };

  void prepare(std::int64_t index) {
    Stage& stage = stages_[static_cast<std::size_t>(index)];
    const auto turns = step::turns_of(pipeline_.schedule, index, count_, pipeline_.chunks,
                                      pipeline_.micro_batches, pipeline_.group);
    if (splits_) {
      stage.moves = zero_bubble(turns, index, count_);
    } else {
      stage.moves.reserve(turns.size());
      for (const step::Turn& turn : turns) {
        const bool forward = turn.kind == step::PhaseKind::forward;
        stage.moves.push_back({forward ? Part::forward : Part::backward, turn.chunk});
      }
    }
    for (auto& batches : stage.batches) batches.resize(static_cast<std::size_t>(pipeline_.chunks));
  }

  // Runs what can run; whether anything did.
  bool advance(std::int64_t index) {
    Stage& stage = stages_[static_cast<std::size_t>(index)];
    const StageTimes& times = pipeline_.stages[static_cast<std::size_t>(index)];
    const std::size_t before = stage.next;
    for (; stage.next < stage.moves.size(); ++stage.next) {
      const Move& move = stage.moves[stage.next];
      if (move.part == Part::weights) {
        stage.free += times.weights.value();
        continue;
      }
      const std::size_t way = move.part == Part::forward ? 0 : 1;
      std::int64_t& batch = stage.batches[way][static_cast<std::size_t>(move.chunk)];
      const std::int64_t depth = move.chunk * count_ + index;
      const double ready = ready_at(way, depth, batch);
      if (ready < 0.0) break;
      stage.free = std::max(stage.free, ready) + length(way, times);
      ends_[way][place(depth, batch)] = stage.free;
      ++batch;
    }
    return stage.next > before;
  }

  [[nodiscard]] double length(std::size_t way, const StageTimes& times) const {
    if (way == 0) return times.forward.value();
    return (splits_ ? times.backward - times.weights : times.backward).value();
  }
  [[nodiscard]] std::size_t place(std::int64_t depth, std::int64_t batch) const {
    return static_cast<std::size_t>(depth * pipeline_.micro_batches + batch);
  }
  // When what the pass waits for is done; negative: not yet.
  [[nodiscard]] double ready_at(std::size_t way, std::int64_t depth, std::int64_t batch) const {
    const std::int64_t deepest = count_ * pipeline_.chunks - 1;
    if (way == 0) return depth == 0 ? 0.0 : ends_[0][place(depth - 1, batch)];
    return depth == deepest ? ends_[0][place(depth, batch)] : ends_[1][place(depth + 1, batch)];
  }

  const Pipeline& pipeline_;
  std::int64_t count_;
  bool splits_;
  std::vector<Stage> stages_;
  std::vector<double> ends_[2];  // by depth in the model and micro-batch
};

// Of the stage that takes longest.
double slowest(const Pipeline& pipeline) {
  double longest = 0.0;
  for (const StageTimes& times : pipeline.stages) {
    longest = std::max(longest, (times.forward + times.backward).value());
  }
  return longest * static_cast<double>(pipeline.chunks);
}

}  // namespace

Seconds played(const Pipeline& pipeline) {
  // Once full, a pipeline goes on at the pace of its slowest stage, so a long step is played short.
  constexpr std::int64_t kRounds = 6;
  const std::int64_t round =
      std::max<std::int64_t>({std::ssize(pipeline.stages), pipeline.group, 1});
  Pipeline shorter = pipeline;
  const std::int64_t spare = pipeline.micro_batches - kRounds * round;
  const std::int64_t left_out = std::max<std::int64_t>(0, spare / round) * round;
  shorter.micro_batches -= left_out;
  return Seconds(Player(shorter).play() + static_cast<double>(left_out) * slowest(pipeline));
}

}  // namespace steelyard::pace
