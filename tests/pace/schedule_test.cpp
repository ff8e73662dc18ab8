// Pipelines: what the walk adds for waiting, and the player of uneven stages, against playing every
// pass of every stage by plain rules.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <tuple>
#include <vector>

#include "pace/schedule.h"
#include "pace/small_programs.h"
#include "pace/walk.h"
#include "step/pipeline.h"

namespace steelyard::pace {
namespace {

using step::PhaseKind;
using step::Turn;

struct Layout {
  facts::Schedule schedule = facts::Schedule::gpipe;
  std::int64_t stages = 1, chunks = 1, micro_batches = 1;
  double forward = 1.0, backward = 2.0;  // of one chunk and micro-batch
};

// Plays the turns: a pass begins when its stage is free and the pass before it has ended.
class Player {
 public:
  explicit Player(const Layout& layout) : layout_(layout) {
    for (std::int64_t stage = 0; stage < layout.stages; ++stage) {
      turns_.push_back(step::turns_of(layout.schedule, stage, layout.stages, layout.chunks,
                                      layout.micro_batches));
    }
  }

  // The end of the last pass; negative when the stages wait for each other for ever.
  double play() {
    const auto stages = static_cast<std::size_t>(layout_.stages);
    std::vector<std::size_t> next(stages, 0);
    std::vector<double> free(stages, 0.0);
    std::vector<std::map<std::pair<int, std::int32_t>, std::int64_t>> played(stages);
    for (bool moved = true; moved;) {
      moved = false;
      for (std::size_t stage = 0; stage < stages; ++stage) {
        while (next[stage] < turns_[stage].size()) {
          const Turn& turn = turns_[stage][next[stage]];
          const int kind = turn.kind == PhaseKind::forward ? 0 : 1;
          std::int64_t& batch = played[stage][{kind, turn.chunk}];
          const std::int64_t depth = turn.chunk * layout_.stages + static_cast<std::int64_t>(stage);
          const double* ready = before(kind, depth, batch);
          if (ready == nullptr) break;
          free[stage] =
              std::max(free[stage], *ready) + (kind == 0 ? layout_.forward : layout_.backward);
          ends_[{kind, depth, batch}] = free[stage];
          ++batch;
          ++next[stage];
          moved = true;
        }
      }
    }
    for (std::size_t stage = 0; stage < stages; ++stage) {
      if (next[stage] != turns_[stage].size()) return -1.0;
    }
    return *std::max_element(free.begin(), free.end());
  }

 private:
  const double* before(int kind, std::int64_t depth, std::int64_t batch) const {
    static constexpr double kStart = 0.0;
    const std::int64_t deepest = layout_.stages * layout_.chunks - 1;
    if (kind == 0 && depth == 0) return &kStart;
    const auto found = kind == 0          ? ends_.find({0, depth - 1, batch})
                       : depth == deepest ? ends_.find({0, depth, batch})
                                          : ends_.find({1, depth + 1, batch});
    return found == ends_.end() ? nullptr : &found->second;
  }

  Layout layout_;
  std::vector<std::vector<Turn>> turns_;
  std::map<std::tuple<int, std::int64_t, std::int64_t>, double> ends_;
};

// The same layout as a program: every chunk of one stage, every micro-batch.
double walked_seconds(const Layout& layout) {
  step::Program program;
  program.stages = layout.stages;
  program.chunks = layout.chunks;
  program.micro_batches = layout.micro_batches;
  program.work.resize(2);
  step::Pass pass;
  pass.repeat = layout.micro_batches * layout.chunks;
  pass.phases.resize(2);
  for (std::int32_t i = 0; i < 2; ++i) {
    step::Body body;
    body.events.push_back({step::EventKind::work, i});
    pass.phases[static_cast<std::size_t>(i)].kind =
        i == 0 ? PhaseKind::forward : PhaseKind::backward;
    pass.phases[static_cast<std::size_t>(i)].bodies.push_back(std::move(body));
  }
  program.step.push_back(std::move(pass));
  Prices prices;
  prices.work = {{Seconds(layout.forward), true}, {Seconds(layout.backward), true}};
  return walk(program, prices).breakdown.total().value();
}

TEST(Schedules, AgreeWithPlayingEveryPassOnRandomLayouts) {
  std::mt19937 engine(7);
  const auto whole = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(engine);
  };
  for (int i = 0; i < 1000; ++i) {
    Layout layout;
    layout.stages = whole(1, 12);
    layout.schedule = whole(0, 1) == 0 ? facts::Schedule::gpipe : facts::Schedule::one_f_one_b;
    layout.micro_batches = whole(1, 24);
    if (whole(0, 2) == 0 && layout.stages > 1) {
      // Megatron-LM takes interleaving only with micro-batches in groups of the stages.
      layout.schedule = facts::Schedule::interleaved;
      layout.chunks = whole(2, 4);
      layout.micro_batches = layout.stages * whole(1, 4);
    }
    layout.forward = 0.001 * static_cast<double>(whole(1, 50));
    // A forward pass no longer than a backward one, as recomputing or not it is.
    layout.backward = layout.forward + 0.001 * static_cast<double>(whole(0, 50));
    const double played = Player(layout).play();
    ASSERT_GT(played, 0.0);
    EXPECT_NEAR(walked_seconds(layout), played, 1e-9 * played)
        << facts::name_of(layout.schedule) << " of " << layout.stages << " stages, "
        << layout.chunks << " chunks, " << layout.micro_batches << " micro-batches, "
        << layout.forward << " and " << layout.backward << " s";
  }
}

TEST(Schedules, WaitTheKnownShareOfTheirWork) {
  // (p - 1) / m, and of interleaved chunks (p - 1) / (v m) (arXiv 2104.04473, section 2.2).
  const Layout plain{facts::Schedule::one_f_one_b, 4, 1, 8, 1.0, 2.0};
  EXPECT_NEAR(walked_seconds(plain), 24.0 * (1.0 + 3.0 / 8.0), 1e-9);
  const Layout interleaved{facts::Schedule::interleaved, 4, 2, 8, 0.5, 1.0};
  EXPECT_NEAR(walked_seconds(interleaved), 24.0 * (1.0 + 3.0 / 16.0), 1e-9);
}

// --- Uneven stages and zero-bubble -----------------------------------------------------------

// A stage's own list of passes, written down anew: kind ('F', 'B' or 'W') and chunk.
std::vector<std::pair<char, std::int32_t>> passes_of(const Pipeline& pipeline, std::int64_t stage) {
  const auto stages = static_cast<std::int64_t>(pipeline.stages.size());
  std::vector<std::pair<char, std::int32_t>> passes;
  const bool splits = pipeline.schedule == facts::Schedule::zero_bubble;
  if (!splits) {
    for (const Turn& turn : step::turns_of(pipeline.schedule, stage, stages, pipeline.chunks,
                                           pipeline.micro_batches)) {
      passes.emplace_back(turn.kind == PhaseKind::forward ? 'F' : 'B', turn.chunk);
    }
    return passes;
  }
  const std::int64_t ahead = std::min(pipeline.micro_batches, stages - 1 - stage);
  for (std::int64_t i = 0; i < ahead; ++i) passes.emplace_back('F', 0);
  std::int64_t waiting = 0;
  for (std::int64_t i = 0; i < pipeline.micro_batches; ++i) {
    if (i + ahead < pipeline.micro_batches) passes.emplace_back('F', 0);
    passes.emplace_back('B', 0);
    ++waiting;
    if (waiting > stage || i >= pipeline.micro_batches - (stages - 1 - stage)) {
      passes.emplace_back('W', 0);
      --waiting;
    }
  }
  for (; waiting > 0; --waiting) passes.emplace_back('W', 0);
  return passes;
}

// Plain event simulation: again and again the first pass, of all stages, that can begin.
double simulated(const Pipeline& pipeline) {
  const auto stages = static_cast<std::int64_t>(pipeline.stages.size());
  const std::int64_t deepest = stages * pipeline.chunks - 1;
  const bool splits = pipeline.schedule == facts::Schedule::zero_bubble;
  std::map<std::tuple<char, std::int64_t, std::int64_t>, double> ends;
  std::vector<double> free(static_cast<std::size_t>(stages), 0.0);
  std::vector<std::size_t> next(static_cast<std::size_t>(stages), 0);
  std::map<std::tuple<std::int64_t, char, std::int32_t>, std::int64_t> batches;
  std::vector<std::vector<std::pair<char, std::int32_t>>> lists;
  for (std::int64_t i = 0; i < stages; ++i) lists.push_back(passes_of(pipeline, i));
  for (;;) {
    std::int64_t best = -1;
    double begin = 0.0;
    for (std::int64_t i = 0; i < stages; ++i) {
      const auto stage = static_cast<std::size_t>(i);
      if (next[stage] == lists[stage].size()) continue;
      const auto [kind, chunk] = lists[stage][next[stage]];
      const std::int64_t depth = chunk * stages + i, batch = batches[{i, kind, chunk}];
      double ready = 0.0;
      if (kind != 'W' && !(kind == 'F' && depth == 0)) {
        const auto found = kind == 'F'        ? ends.find({'F', depth - 1, batch})
                           : depth == deepest ? ends.find({'F', depth, batch})
                                              : ends.find({'B', depth + 1, batch});
        if (found == ends.end()) continue;
        ready = found->second;
      }
      const double at = std::max(ready, free[stage]);
      if (best < 0 || at < begin) {
        best = i;
        begin = at;
      }
    }
    if (best < 0) return *std::max_element(free.begin(), free.end());
    const auto stage = static_cast<std::size_t>(best);
    const auto [kind, chunk] = lists[stage][next[stage]++];
    const StageTimes& times = pipeline.stages[stage];
    const Seconds backward = splits ? times.backward - times.weights : times.backward;
    free[stage] = begin + (kind == 'F'   ? times.forward
                           : kind == 'B' ? backward
                                         : times.weights)
                              .value();
    ends[{kind, chunk * stages + best, batches[{best, kind, chunk}]++}] = free[stage];
  }
}

TEST(Schedules, OfUnevenStagesAgreeWithAPlainEventSimulation) {
  std::mt19937 engine(11);
  const auto whole = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(engine);
  };
  for (int i = 0; i < 1000; ++i) {
    Pipeline pipeline;
    const std::int64_t stages = whole(1, 8);
    const std::int64_t kind = whole(0, 3);
    pipeline.micro_batches = whole(1, 6 * stages);
    if (kind == 0) pipeline.schedule = facts::Schedule::gpipe;
    if (kind == 1) pipeline.schedule = facts::Schedule::zero_bubble;
    if (kind == 2 && stages > 1) {
      pipeline.schedule = facts::Schedule::interleaved;
      pipeline.chunks = whole(2, 4);
      pipeline.micro_batches = stages * whole(1, 4);
    }
    for (std::int64_t stage = 0; stage < stages; ++stage) {
      const double backward = 0.001 * static_cast<double>(whole(10, 90));
      pipeline.stages.push_back({Seconds(0.001 * static_cast<double>(whole(5, 50))),
                                 Seconds(backward),
                                 Seconds(backward * 0.01 * static_cast<double>(whole(0, 60)))});
    }
    const double expected = simulated(pipeline);
    EXPECT_NEAR(played(pipeline).value(), expected, 1e-9 * expected)
        << facts::name_of(pipeline.schedule) << " of " << stages << " stages, " << pipeline.chunks
        << " chunks, " << pipeline.micro_batches << " micro-batches";
  }
}

// Many micro-batches are not played one by one.
TEST(Schedules, LongStepsGrowByTheSlowestStage) {
  for (const auto schedule : {facts::Schedule::one_f_one_b, facts::Schedule::zero_bubble}) {
    Pipeline pipeline;
    pipeline.schedule = schedule;
    pipeline.micro_batches = 200;
    for (const double times : {1.0, 1.3, 0.9, 1.1}) {
      pipeline.stages.push_back({Seconds(times), Seconds(2.0 * times), Seconds(0.8 * times)});
    }
    EXPECT_NEAR(played(pipeline).value(), simulated(pipeline), 1e-9 * simulated(pipeline));
  }
}

TEST(Schedules, ZeroBubbleWaitsForForwardAndBackwardLessTheWeights) {
  // ZB-H1: (p - 1)(T_F + T_B - T_W), against 1F1B's (p - 1)(T_F + T_B + T_W)
  // (arXiv 2401.10241, table 2); here backward is T_B + T_W.
  for (const std::int64_t stages : {2, 4, 8}) {
    Pipeline pipeline;
    pipeline.schedule = facts::Schedule::zero_bubble;
    pipeline.micro_batches = 3 * stages;
    pipeline.stages.assign(static_cast<std::size_t>(stages),
                           {Seconds(1.0), Seconds(2.0), Seconds(0.8)});
    const double work = 3.0 * static_cast<double>(pipeline.micro_batches);
    const double gaps = static_cast<double>(stages - 1);
    EXPECT_NEAR(played(pipeline).value(), work + gaps * (1.0 + 1.2 - 0.8), 1e-9);
    pipeline.schedule = facts::Schedule::one_f_one_b;
    EXPECT_NEAR(played(pipeline).value(), work + gaps * 3.0, 1e-9);
  }
}

// The walk plays the stages that the plan says are lighter.
TEST(Schedules, LighterStagesWaitForTheBusiest) {
  step::Program program;
  program.stages = 2;
  program.micro_batches = 4;
  program.work.resize(2);
  step::Pass pass;
  pass.repeat = 4;
  pass.phases.resize(2);
  for (std::int32_t i = 0; i < 2; ++i) {
    step::Body body;
    body.events.push_back({step::EventKind::work, i});
    pass.phases[static_cast<std::size_t>(i)].kind =
        i == 0 ? PhaseKind::forward : PhaseKind::backward;
    pass.phases[static_cast<std::size_t>(i)].bodies.push_back(std::move(body));
  }
  program.step.push_back(std::move(pass));
  Prices prices;
  prices.work = {{Seconds(1.0), true}, {Seconds(2.0), true}};
  EXPECT_NEAR(walk(program, prices).breakdown.bubble.value(), 3.0, 1e-12);
  prices.stage_shares = {0.5, 1.0};
  // Half a second of forward before it, one second of backward behind it.
  EXPECT_NEAR(walk(program, prices).breakdown.bubble.value(), 1.5, 1e-12);
}

}  // namespace
}  // namespace steelyard::pace
