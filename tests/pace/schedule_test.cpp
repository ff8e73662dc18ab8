// Pipelines: what the walk adds for waiting, against playing every pass of every stage.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <tuple>
#include <vector>

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

}  // namespace
}  // namespace steelyard::pace
