#include "pace/schedule.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <vector>

#include "base/memo.h"
#include "base/quantity.h"
#include "step/pipeline.h"
#include "step/workshop.h"

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

// A pass of a stage, or its gradients of weights, in the order in which they can run.
struct Played {
  std::int32_t stage = 0;
  std::int32_t waits_for = 0;  // place of the pass's end that it waits for
  std::int32_t place = 0;      // of its own end; the last one: nobody waits for it
  Part part = Part::forward;
};

// Who waits for whom does not depend on how long anything takes.
struct Order {
  std::once_flag once;
  std::vector<Played> moves;
  std::size_t places = 0;  // the last but one is the begin, when nothing is waited for
};
using Orders = Memo<std::array<std::int64_t, 5>, Order>;

class Orderer {
 public:
  explicit Orderer(const Pipeline& pipeline)
      : pipeline_(pipeline),
        count_(std::ssize(pipeline.stages)),
        stages_(pipeline.stages.size()),
        done_(static_cast<std::size_t>(2 * passes()), false) {
    for (std::int64_t stage = 0; stage < count_; ++stage) prepare(stage);
  }

  void write(Order& order) {
    order.places = static_cast<std::size_t>(2 * passes()) + 2;
    for (bool moved = true; moved;) {
      moved = false;
      for (std::int64_t stage = 0; stage < count_; ++stage) moved |= advance(stage, order.moves);
    }
  }
  [[nodiscard]] static bool splits(const Pipeline& pipeline) {
    return pipeline.schedule == facts::Schedule::zero_bubble && pipeline.chunks == 1;
  }

 private:
  struct Stage {
    std::vector<Move> moves;
    std::size_t next = 0;
    std::vector<std::int64_t> batches[2];  // done by chunk, forward and backward
  };

  [[nodiscard]] std::int64_t passes() const {
    return count_ * pipeline_.chunks * pipeline_.micro_batches;
  }
  void prepare(std::int64_t index) {
    Stage& stage = stages_[static_cast<std::size_t>(index)];
    const auto turns = step::turns_of(pipeline_.schedule, index, count_, pipeline_.chunks,
                                      pipeline_.micro_batches, pipeline_.group);
    if (splits(pipeline_)) {
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

  // Takes what can run; whether anything could.
  bool advance(std::int64_t index, std::vector<Played>& order) {
    Stage& stage = stages_[static_cast<std::size_t>(index)];
    const std::size_t before = stage.next;
    const auto nobody = static_cast<std::int32_t>(2 * passes() + 1);
    for (; stage.next < stage.moves.size(); ++stage.next) {
      const Move& move = stage.moves[stage.next];
      Played played{static_cast<std::int32_t>(index), nobody - 1, nobody, move.part};
      if (move.part != Part::weights) {
        const std::size_t way = move.part == Part::forward ? 0 : 1;
        std::int64_t& batch = stage.batches[way][static_cast<std::size_t>(move.chunk)];
        const std::int64_t depth = move.chunk * count_ + index;
        played.waits_for = before_it(way, depth, batch);
        if (played.waits_for < nobody - 1 && !done_[static_cast<std::size_t>(played.waits_for)]) {
          break;
        }
        played.place = place(way, depth, batch++);
        done_[static_cast<std::size_t>(played.place)] = true;
      }
      order.push_back(played);
    }
    return stage.next > before;
  }

  [[nodiscard]] std::int32_t place(std::size_t way, std::int64_t depth, std::int64_t batch) const {
    return static_cast<std::int32_t>(static_cast<std::int64_t>(way) * passes() +
                                     depth * pipeline_.micro_batches + batch);
  }
  // The pass that it waits for.
  [[nodiscard]] std::int32_t before_it(std::size_t way, std::int64_t depth,
                                       std::int64_t batch) const {
    const std::int64_t deepest = count_ * pipeline_.chunks - 1;
    if (way == 0) {
      return depth == 0 ? static_cast<std::int32_t>(2 * passes()) : place(0, depth - 1, batch);
    }
    return depth == deepest ? place(0, depth, batch) : place(1, depth + 1, batch);
  }

  const Pipeline& pipeline_;
  std::int64_t count_;
  std::vector<Stage> stages_;
  std::vector<bool> done_;
};

double play(const Order& order, const Pipeline& pipeline) {
  std::vector<std::array<double, 3>> lengths;  // by stage and part
  const bool splits = Orderer::splits(pipeline);
  for (const StageTimes& times : pipeline.stages) {
    const Seconds backward = splits ? times.backward - times.weights : times.backward;
    lengths.push_back({times.forward.value(), backward.value(), times.weights.value()});
  }
  std::vector<double> free(pipeline.stages.size(), 0.0), ends(order.places, 0.0);
  for (const Played& move : order.moves) {
    const auto stage = static_cast<std::size_t>(move.stage);
    const double ready = ends[static_cast<std::size_t>(move.waits_for)];
    const double length = lengths[stage][static_cast<std::size_t>(move.part)];
    free[stage] = std::max(free[stage], ready) + length;
    ends[static_cast<std::size_t>(move.place)] = free[stage];
  }
  return *std::max_element(free.begin(), free.end());
}

// `workshop`: where the order of pipelines of one shape is kept; null: nowhere.
double played_whole(const Pipeline& pipeline, step::Workshop* workshop) {
  constexpr std::int64_t kMostKept = 65536;  // moves: what is longer takes its time anyway
  const std::int64_t moves = checked_multiply(
      std::ssize(pipeline.stages), 2 * checked_multiply(pipeline.chunks, pipeline.micro_batches));
  if (workshop == nullptr || moves > kMostKept) {
    Order order;
    Orderer(pipeline).write(order);
    return play(order, pipeline);
  }
  Order& order = workshop->shelf<Orders>().at({static_cast<std::int64_t>(pipeline.schedule),
                                               std::ssize(pipeline.stages), pipeline.chunks,
                                               pipeline.micro_batches, pipeline.group});
  std::call_once(order.once, [&] { Orderer(pipeline).write(order); });
  return play(order, pipeline);
}

// Of the stage that takes longest.
double slowest(const Pipeline& pipeline) {
  double longest = 0.0;
  for (const StageTimes& times : pipeline.stages) {
    longest = std::max(longest, (times.forward + times.backward).value());
  }
  return longest * static_cast<double>(pipeline.chunks);
}

}  // namespace

Seconds played(const Pipeline& pipeline, step::Workshop* workshop) {
  // Once full, a pipeline goes on at the pace of its slowest stage, so a long step is played short.
  constexpr std::int64_t kRounds = 6;
  const std::int64_t round =
      std::max<std::int64_t>({std::ssize(pipeline.stages), pipeline.group, 1});
  Pipeline shorter = pipeline;
  const std::int64_t spare = pipeline.micro_batches - kRounds * round;
  const std::int64_t left_out = std::max<std::int64_t>(0, spare / round) * round;
  shorter.micro_batches -= left_out;
  return Seconds(played_whole(shorter, workshop) +
                 static_cast<double>(left_out) * slowest(pipeline));
}

}  // namespace steelyard::pace
