#include "share/share.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "share/simple_planner.h"

namespace steelyard::share {
namespace {

using facts::SharedResource;
using facts::ShareVerdict;

SharingJob sharing(const std::string& name, const Simple& simple, std::int64_t gpus,
                   std::int64_t copies = 1) {
  return {.job = simple_job(name, simple),
          .file = name,
          .copies = copies,
          .gpus = gpus,
          .planner = simple_plan};
}

facts::SharePlan on_the_machine(std::vector<SharingJob> jobs) {
  return share({.machine = simple_machine(), .jobs = std::move(jobs)});
}

double times_slower(const facts::PlacedJob& job) {
  return *job.step_together / *job.step_alone == Ratio()
             ? 0.0
             : (*job.step_together / *job.step_alone).value();
}

// 6 + 6 GB/s wanted of 10: each gets 5, so a step of 1 s becomes 1.2 s.
TEST(Share, StorageIsSharedFairly) {
  const auto plan = on_the_machine({sharing("reader", {.read = 0.6}, 1, 2)});
  EXPECT_EQ(plan.verdict, ShareVerdict::fits);
  for (const facts::PlacedJob& job : plan.jobs) {
    EXPECT_NEAR(times_slower(job), 1.2, 0.01);
    ASSERT_EQ(job.parts.size(), 1U);
    EXPECT_EQ(job.parts[0].resource, SharedResource::storage);
    EXPECT_NEAR(job.parts[0].given, 5e9, 1e7);
  }
}

// 40 and 40 of 64 cores: 32 each, 40 / 32 of the step.
TEST(Share, CoresAreSharedFairly) {
  const auto plan = on_the_machine({sharing("decoder", {.cores = 40.0 / 64.0}, 2, 2)});
  for (const facts::PlacedJob& job : plan.jobs) EXPECT_NEAR(times_slower(job), 1.25, 0.01);
}

// Both want 30 of the 50 GB/s to a GPU: alone on its own link each is as fast as ever; behind one
// switch each has 25.
TEST(Share, UplinksAreSharedOnlyBehindOneSwitch) {
  ShareQuestion question{.machine = simple_machine(),
                         .jobs = {sharing("copier", {.copy = 0.6}, 1, 2)}};
  EXPECT_EQ(times_slower(share(question).jobs[0]), 1.0);
  question.machine.gpus = 2;
  question.machine.host.sockets = {1, facts::Provenance::given};
  question.machine.host.gpus_per_uplink = {2, facts::Provenance::given};
  const auto plan = share(question);
  for (const facts::PlacedJob& job : plan.jobs) EXPECT_NEAR(times_slower(job), 1.2, 0.01);
}

// Of 256 GiB two jobs leave 256 - 4 - 2 x 10 = 232 GiB, and each wants 200 GiB for its own dataset:
// 116 each. 42 % of the reading is left, 0.42 s of a step of 0.3 s.
TEST(Share, ThePageCacheIsSharedFairly) {
  const Simple simple{.compute = 0.3, .read = 1.0, .cache_gib = 200.0, .ram_gib = "1 10 2 3"};
  const auto apart = on_the_machine({sharing("one", simple, 1), sharing("two", simple, 1)});
  for (const facts::PlacedJob& job : apart.jobs) {
    EXPECT_NEAR(job.step_alone->value(), 0.3, 1e-9);
    EXPECT_NEAR(job.step_together->value(), 2 * 0.42, 0.02);  // and half of the storage
  }
  // Copies read the same dataset, which is kept once.
  const auto copies = on_the_machine({sharing("one", simple, 1, 2)});
  for (const facts::PlacedJob& job : copies.jobs) EXPECT_EQ(job.step_together, job.step_alone);
}

// Phases "start-up load steady checkpoint" per GPU: 1 60 2 3 GiB. Four: 4 + 4 x 60 = 244 GiB of
// 256; five need 304 at load, but one after the other 4 + 5 x 2 + 58 = 72.
TEST(Share, MemoryIsSummedByPhaseAndTheSystemCountedOnce) {
  const Simple simple{.ram_gib = "1 60 2 3"};
  const auto four = on_the_machine({sharing("loader", simple, 1, 4)});
  EXPECT_EQ(four.verdict, ShareVerdict::fits);
  EXPECT_EQ(four.ram.phases[0], gib(8.0));
  EXPECT_EQ(four.ram.phases[1], gib(244.0));
  EXPECT_EQ(four.ram.worst, gib(244.0));
  const auto five = on_the_machine({sharing("loader", simple, 1, 5)});
  EXPECT_EQ(five.verdict, ShareVerdict::one_by_one);
  EXPECT_EQ(five.ram.one_by_one, gib(72.0));
  EXPECT_EQ(five.move, (std::vector<std::int64_t>{4}));
}

TEST(Share, TheSmallestJobThatMakesRoomIsMoved) {
  const auto plan = on_the_machine({sharing("large", {.ram_gib = "1 10 10 10"}, 4),
                                    sharing("small", {.ram_gib = "1 5 5 5"}, 2),
                                    sharing("middle", {.ram_gib = "1 5 5 5"}, 3)});
  EXPECT_EQ(plan.verdict, ShareVerdict::gpus_short);  // 9 of 8
  EXPECT_EQ(plan.move, (std::vector<std::int64_t>{1}));
  // The places are those of the rest.
  EXPECT_TRUE(plan.jobs[1].on.empty());
  EXPECT_EQ(plan.jobs[0].on.size(), 4U);
  EXPECT_EQ(plan.jobs[2].on.size(), 3U);
}

TEST(Share, AJobThatCannotRunHereIsMovedInAnyCase) {
  const auto plan = on_the_machine(
      {sharing("huge", {.vram_gib = 100.0}, 1), sharing("fine", {}, 1), sharing("wide", {}, 9)});
  EXPECT_EQ(plan.verdict, ShareVerdict::refused);
  EXPECT_EQ(plan.move, (std::vector<std::int64_t>{0, 2}));
}

// Three on one card, each always busy: a third each. VRAM: 3 x 30 GiB do not fit, 3 x 20 do.
TEST(Share, TurnsOnAGpuDivideThePaceAndNeedRoomForAll) {
  ShareQuestion question{.machine = simple_machine(),
                         .jobs = {sharing("busy", {.vram_gib = 20.0}, 1, 3)},
                         .time_slice = true};
  question.machine.gpus = 1;
  question.machine.host.sockets = {1, facts::Provenance::given};
  const auto plan = share(question);
  EXPECT_EQ(plan.verdict, ShareVerdict::fits);
  for (const facts::PlacedJob& job : plan.jobs) {
    EXPECT_EQ(job.seat, facts::Seat::time_slice);
    EXPECT_NEAR(times_slower(job), 3.0, 1e-6);
  }
  question.jobs = {sharing("busy", {.vram_gib = 30.0}, 1, 3)};
  EXPECT_EQ(share(question).verdict, ShareVerdict::gpus_short);
}

TEST(Share, AnInstanceHasItsPartOfTheMultiprocessors) {
  facts::MigTable table;
  table.profiles = {{"3g", 3, 4, {0, 4}, gib(39.0), Ratio(3.0 / 7.0), Ratio(0.5)}};
  ShareQuestion question{.machine = simple_machine(),
                         .jobs = {sharing("half", {.vram_gib = 20.0}, 1, 2)},
                         .mig = table};
  EXPECT_EQ(share(question).jobs[0].seat, facts::Seat::whole);  // there are GPUs enough
  question.machine.gpus = 1;
  question.machine.host.sockets = {1, facts::Provenance::given};
  const auto plan = share(question);
  EXPECT_EQ(plan.verdict, ShareVerdict::fits);
  for (const facts::PlacedJob& job : plan.jobs) {
    EXPECT_EQ(job.profile, "3g");
    EXPECT_NEAR(times_slower(job), 7.0 / 3.0, 1e-6);
  }
}

TEST(Share, ACardOfUnknownMemoryIsNotCalledFull) {
  ShareQuestion question{.machine = simple_machine(), .jobs = {sharing("one", {}, 1, 2)}};
  question.machine.gpu.memory = {};
  question.jobs[0].planner = [](const facts::Job& job, const facts::Machine& machine, Depth) {
    return simple_plan(job, machine, Depth::without_vram);
  };
  EXPECT_EQ(share(question).verdict, ShareVerdict::fits);
}

struct RandomJobs {
  std::vector<SharingJob> jobs;

  explicit RandomJobs(std::mt19937& random, double scale) {
    const auto part = [&] { return scale * static_cast<double>(random() % 10) / 10.0; };
    const std::size_t many = 2 + random() % 3;
    for (std::size_t i = 0; i < many; ++i) {
      const Simple simple{.compute = 0.5 + part(),
                          .read = part(),
                          .cores = part(),
                          .copy = part(),
                          .cache_gib = static_cast<double>(random() % 3) * 60.0 * scale,
                          .ram_gib = "1 8 6 9"};
      jobs.push_back(
          sharing("job" + std::to_string(i), simple, 1 + static_cast<std::int64_t>(random() % 2)));
    }
  }
};

// A machine a hundred times as large as any of them wants.
TEST(Share, JobsThatTouchNothingInCommonAreAsAlone) {
  std::mt19937 random(4);
  facts::Machine machine = simple_machine();
  machine.host.memory = {gib(4096.0), facts::Provenance::given};
  for (int i = 0; i < 100; ++i) {
    RandomJobs some(random, 0.2);
    const auto plan = share({.machine = machine, .jobs = some.jobs});
    ASSERT_EQ(plan.verdict, ShareVerdict::fits) << i;
    for (std::size_t j = 0; j < plan.jobs.size(); ++j) {
      const facts::Plan alone =
          *simple_plan(moved(some.jobs[j].job, 1, *some.jobs[j].gpus), machine, Depth::full);
      const facts::PlacedJob& job = plan.jobs[j];
      EXPECT_TRUE(job.parts.empty()) << i;
      EXPECT_EQ(job.step_together, alone.pace.step) << i;
      EXPECT_EQ(job.together->pace.step, alone.pace.step) << i;
      EXPECT_EQ(job.together->ram.peak, alone.ram.peak) << i;
      EXPECT_EQ(job.together->vram.fullest.peak_device_used, alone.vram.fullest.peak_device_used)
          << i;
    }
  }
}

TEST(Share, OneMoreJobSpeedsNobodyUp) {
  std::mt19937 random(5);
  for (int i = 0; i < 100; ++i) {
    RandomJobs some(random, 1.0);
    const auto with = on_the_machine(some.jobs);
    some.jobs.pop_back();
    const auto without = on_the_machine(some.jobs);
    for (std::size_t j = 0; j < without.jobs.size(); ++j) {
      const Seconds before = *without.jobs[j].step_together, after = *with.jobs[j].step_together;
      EXPECT_GE(after.value(), before.value() * (1.0 - 1e-9)) << i << " " << j;
      EXPECT_GE(before, *without.jobs[j].step_alone) << i << " " << j;
    }
  }
}

TEST(Share, TheOrderOfTheJobsDoesNotMatter) {
  std::mt19937 random(6);
  for (int i = 0; i < 50; ++i) {
    RandomJobs some(random, 1.0);
    const auto first = on_the_machine(some.jobs);
    std::shuffle(some.jobs.begin(), some.jobs.end(), random);
    const auto second = on_the_machine(some.jobs);
    EXPECT_EQ(first.verdict, second.verdict) << i;
    for (const facts::PlacedJob& job : first.jobs) {
      const auto same = std::ranges::find(second.jobs, job.name, &facts::PlacedJob::name);
      ASSERT_NE(same, second.jobs.end());
      EXPECT_EQ(same->on, job.on) << i;
      EXPECT_EQ(same->step_together, job.step_together) << i;
    }
  }
}

}  // namespace
}  // namespace steelyard::share
