// Plans that share a workshop are those that are made alone: to the byte, and to the bit of the
// seconds.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <thread>

#include "codec/codec.h"
#include "plan/planning.h"
#include "plan/random_jobs.h"
#include "plan/ranks.h"
#include "step/workshop.h"

namespace steelyard::plan {
namespace {

// Random jobs whose layers are split in several ways.
class RandomLayouts {
 public:
  facts::Job next() {
    facts::Job job = jobs_.next();
    facts::ParallelKeys& p = job.parallel;
    switch (random_() % 3) {
      case 0: break;
      case 1:
        job.framework = "megatron";
        job.train.precision = facts::Precision::bf16_mixed;
        job.train.attention = facts::Attention::flash;
        p.sharding = random_() % 2 == 0 ? facts::Sharding::none : facts::Sharding::zero1;
        [[fallthrough]];
      default:
        p.tensor = pick({1, 1, 2});
        p.pipeline = pick({1, 1, 2, 4});
        p.context = pick({1, 1, 2});
        p.virtual_stages = p.pipeline > 1 ? pick({1, 1, 2}) : 1;
        if (p.virtual_stages > 1) p.schedule = facts::Schedule::interleaved;
        p.sequence_parallel = p.tensor > 1 && random_() % 2 == 0;
        job.train.recompute.mode =
            random_() % 2 == 0 ? facts::RecomputeMode::none : facts::RecomputeMode::selective;
        if (random_() % 4 == 0) job.offload.activations = facts::OffloadTo::cpu;
    }
    if (random_() % 8 == 0) job.train.compile = true;
    if (random_() % 8 == 0) job.train.method = facts::Method::lora;
    return job;
  }

 private:
  std::int64_t pick(std::initializer_list<std::int64_t> values) {
    return *(values.begin() + static_cast<std::ptrdiff_t>(random_() % values.size()));
  }

  RandomJobs jobs_{20261129};
  std::mt19937 random_{7};
};

void expect_same(const step::Body& a, const step::Body& b) {
  EXPECT_EQ(a.layer, b.layer);
  EXPECT_EQ(a.repeat, b.repeat);
  EXPECT_EQ(a.reversed, b.reversed);
  EXPECT_TRUE(std::ranges::equal(a.events, b.events, [](step::Event x, step::Event y) {
    return x.kind == y.kind && x.index == y.index;
  }));
}

void expect_same(const std::vector<step::Pass>& a, const std::vector<step::Pass>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].repeat, b[i].repeat);
    EXPECT_EQ(a[i].order, b[i].order);
    ASSERT_EQ(a[i].phases.size(), b[i].phases.size());
    for (std::size_t p = 0; p < a[i].phases.size(); ++p) {
      const step::Phase& x = a[i].phases[p];
      const step::Phase& y = b[i].phases[p];
      EXPECT_EQ(x.kind, y.kind);
      EXPECT_EQ(x.chunk, y.chunk);
      ASSERT_EQ(x.bodies.size(), y.bodies.size());
      for (std::size_t k = 0; k < x.bodies.size(); ++k) expect_same(x.bodies[k], y.bodies[k]);
    }
  }
}

bool same(const step::Slot& a, const step::Slot& b) {
  return a.bytes == b.bytes && a.category == b.category && a.stream == b.stream &&
         a.name == b.name && a.managed == b.managed &&
         a.outlives_micro_batch == b.outlives_micro_batch && a.shared == b.shared &&
         a.recorded == b.recorded && a.dtype == b.dtype && a.extent == b.extent;
}

bool same(const step::Work& a, const step::Work& b) {
  return a.kind == b.kind && a.dtype == b.dtype && a.tf32 == b.tf32 && a.backward == b.backward &&
         a.recomputed == b.recomputed && a.flops == b.flops && a.traffic == b.traffic &&
         a.m == b.m && a.n == b.n && a.k == b.k && a.batch == b.batch && a.name == b.name;
}

bool same(const step::Communication& a, const step::Communication& b) {
  return a.kind == b.kind && a.payload == b.payload && a.ranks == b.ranks &&
         a.ranks_per_node == b.ranks_per_node && a.overlaps == b.overlaps && a.name == b.name;
}

void expect_same(const step::Program& a, const step::Program& b) {
  EXPECT_EQ(a.names, b.names);
  EXPECT_TRUE(std::ranges::equal(a.slots, b.slots,
                                 [](const auto& x, const auto& y) { return same(x, y); }));
  EXPECT_TRUE(std::ranges::equal(
      a.work, b.work, [](const step::Work& x, const step::Work& y) { return same(x, y); }));
  EXPECT_TRUE(std::ranges::equal(a.communication, b.communication,
                                 [](const auto& x, const auto& y) { return same(x, y); }));
  EXPECT_TRUE(std::ranges::equal(a.gradients, b.gradients, [](const auto& x, const auto& y) {
    return x.fresh == y.fresh && x.kept == y.kept;
  }));
  expect_same(a.setup, b.setup);
  expect_same(a.first_optimizer, b.first_optimizer);
  expect_same(a.step, b.step);
  EXPECT_EQ(a.kernels, b.kernels);
  EXPECT_EQ(a.offloaded_activations, b.offloaded_activations);
  EXPECT_EQ(a.states.optimizer_bytes, b.states.optimizer_bytes);
}

TEST(Workshop, ProgramsAndPlansAreThoseMadeAlone) {
  RandomLayouts layouts;
  const auto workshop = std::make_shared<step::Workshop>();
  int planned = 0, refused = 0;
  for (int i = 0; i < 300; ++i) {
    Request alone = request_for(layouts.next());
    alone.advice = false;
    Request shared = alone;
    shared.workshop = workshop;
    const auto programs = ranks_of(alone);
    for (const int again : {0, 1}) {  // a first time, and out of what is there
      SCOPED_TRACE(words(alone.job) + ", layout " + std::to_string(i) + "." +
                   std::to_string(again));
      const auto other = ranks_of(shared);
      ASSERT_EQ(programs.has_value(), other.has_value());
      if (!programs) {
        ASSERT_EQ(programs.error().subject, other.error().subject);
        ASSERT_EQ(programs.error().found, other.error().found);
        continue;
      }
      ASSERT_EQ(programs->programs.size(), other->programs.size());
      for (std::size_t k = 0; k < programs->programs.size(); ++k) {
        expect_same(programs->programs[k].program, other->programs[k].program);
      }
    }
    ++(programs ? planned : refused);
    if (i % 3 != 0 || !programs) continue;  // replays take longest
    const auto own = plan(alone);
    const auto other = plan(shared);
    ASSERT_EQ(own.has_value(), other.has_value());
    if (!own) continue;
    ASSERT_EQ(codec::to_value(*own), codec::to_value(*other)) << words(alone.job);
  }
  EXPECT_GT(planned, 150);
  EXPECT_GT(refused, 5);
}

TEST(Workshop, SideBySide) {
  std::vector<Request> requests;
  RandomLayouts layouts;
  const auto workshop = std::make_shared<step::Workshop>();
  for (int i = 0; i < 24; ++i) {
    requests.push_back(request_for(layouts.next()));
    requests.back().advice = requests.back().vram = false;
  }
  const auto steps_of = [&](bool sharing) {
    std::vector<double> steps;
    for (Request request : requests) {
      if (sharing) request.workshop = workshop;
      const auto made = plan(request);
      steps.push_back(made && made->pace.step ? made->pace.step->value() : -1.0);
    }
    return steps;
  };
  const std::vector<double> alone = steps_of(false);
  std::vector<double> one, two;
  std::thread beside([&] { one = steps_of(true); });
  two = steps_of(true);
  beside.join();
  EXPECT_EQ(alone, one);
  EXPECT_EQ(alone, two);
}

}  // namespace
}  // namespace steelyard::plan
