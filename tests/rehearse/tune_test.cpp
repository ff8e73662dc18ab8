#include "rehearse/tune.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace steelyard::rehearse {
namespace {

// A machine whose accelerators are used as the least of three shares says.
struct Imagined {
  double workers, prefetch, depth;  // of each, that are enough for all
  int runs = 0;

  Trial trial() {
    return [this](const Settings& s) -> Result<facts::Rehearsal> {
      ++runs;
      facts::Rehearsal rehearsal;
      rehearsal.utilization_least =
          Ratio(std::min({1.0, double(s.workers) / workers, double(s.prefetch) / prefetch,
                          double(s.most_depth) / depth}));
      rehearsal.memory.needed = Bytes(s.workers * 10 + s.prefetch);
      return rehearsal;
    };
  }
};

Settings start() {
  Settings settings;
  settings.step_time = Seconds(0.1);
  settings.prefetch = 8;
  settings.most_depth = 32;
  return settings;
}

TEST(Tune, FindsTheLeastOfEach) {
  for (const auto& [workers, prefetch, depth] :
       {std::tuple{1, 1, 1}, {5, 2, 3}, {16, 8, 32}, {11, 7, 17}}) {
    Imagined machine{double(workers), double(prefetch), double(depth)};
    const auto tuned = tune(start(), 16, Ratio(1.0), machine.trial());
    ASSERT_TRUE(tuned);
    EXPECT_EQ(tuned->settings.workers, workers);
    EXPECT_EQ(tuned->settings.prefetch, prefetch);
    EXPECT_EQ(tuned->settings.most_depth, depth);
    EXPECT_TRUE(tuned->rehearsal.tuning->reached);
    // 1 + log2 of 16, 8 and 32.
    EXPECT_LE(machine.runs, 1 + 4 + 3 + 5);
    EXPECT_EQ(tuned->rehearsal.tuning->tries.size(), std::size_t(machine.runs));
  }
}

TEST(Tune, OutOfReachIsSaidAfterOneTry) {
  Imagined machine{20, 1, 1};
  const auto tuned = tune(start(), 16, Ratio(0.95), machine.trial());
  ASSERT_TRUE(tuned);
  EXPECT_FALSE(tuned->rehearsal.tuning->reached);
  EXPECT_EQ(tuned->rehearsal.tuning->tries.size(), 1U);
  EXPECT_EQ(tuned->settings.workers, 16);
}

TEST(Tune, NeedsAStepTimeAndPassesErrorsOn) {
  Settings none = start();
  none.step_time = Seconds(0);
  Imagined machine{1, 1, 1};
  EXPECT_EQ(tune(none, 4, Ratio(0.9), machine.trial()).error().code, ErrorCode::missing_value);
  const Trial broken = [](const Settings&) -> Result<facts::Rehearsal> {
    return fail({.code = ErrorCode::too_large, .subject = "memory"});
  };
  EXPECT_EQ(tune(start(), 4, Ratio(0.9), broken).error().subject, "memory");
}

}  // namespace
}  // namespace steelyard::rehearse
