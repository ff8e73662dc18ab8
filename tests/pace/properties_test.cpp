// What must hold for any program on any machine.
#include <gtest/gtest.h>

#include <random>

#include "pace/pace.h"
#include "pace/roofline.h"
#include "pace/small_programs.h"

namespace steelyard::pace {
namespace {

using step::Body;
using step::PhaseKind;
using step::Program;
using test::append;

constexpr int kPrograms = 300;

struct Random {
  std::mt19937 engine;

  std::int64_t whole(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(engine);
  }
  bool coin() { return whole(0, 1) == 1; }
};

step::Work random_work(Random& random) {
  const std::int64_t kind = random.whole(0, 3);
  if (kind == 0) {
    step::Work work =
        test::gemm(random.whole(1, 5000), random.whole(1, 5000), random.whole(1, 5000),
                   random.coin() ? facts::DType::bf16 : facts::DType::fp32);
    work.tf32 = work.dtype == facts::DType::fp32 && random.coin();
    work.recomputed = random.coin();
    return work;
  }
  step::Work work;
  work.traffic = Bytes(random.whole(0, 1'000'000'000));
  if (kind == 1) {
    work.kind = step::WorkKind::attention;
    work.dtype = facts::DType::bf16;
    work.flops = Flops(static_cast<double>(random.whole(1, 1'000'000)) * 1e6);
    work.backward = random.coin();
  } else {
    work.kind = kind == 2 ? step::WorkKind::memory : step::WorkKind::optimizer;
  }
  return work;
}

step::Communication random_communication(Random& random) {
  step::Communication communication;
  communication.kind = static_cast<step::Collective>(random.whole(0, 2));
  communication.payload = Bytes(random.whole(0, 2'000'000'000));
  communication.ranks = random.whole(1, 64);
  communication.ranks_per_node = random.whole(1, 8);
  communication.overlaps = random.coin();
  return communication;
}

Program random_program(Random& random) {
  Program program;
  for (std::int64_t pass = random.whole(1, 2); pass > 0; --pass) {
    step::Pass made;
    made.repeat = random.whole(1, 4);
    for (int phase = 1; phase <= 5; ++phase) {
      std::vector<Body> bodies(static_cast<std::size_t>(random.whole(1, 3)));
      for (Body& body : bodies) {
        body.repeat = random.whole(1, 40);
        for (std::int64_t event = random.whole(1, 6); event > 0; --event) {
          if (random.whole(0, 3) == 0) {
            append(program, body, random_communication(random));
          } else {
            append(program, body, random_work(random));
          }
        }
      }
      made.phases.push_back({static_cast<PhaseKind>(phase), std::move(bodies)});
    }
    program.step.push_back(std::move(made));
  }
  append(program, program.step[0].phases[0].bodies[0], test::compute_for(1e-4));
  return program;
}

facts::EfficiencyConstants usual() {
  facts::EfficiencyConstants constants = test::halves();
  constants.kernel_launch = Seconds(6e-6);
  constants.kernel_floor = Seconds(2e-6);
  constants.collective_latency = Seconds(4e-6);
  constants.network_latency = Seconds(15e-6);
  constants.overlap_slowdown = Ratio(0.2);
  constants.kernel_launch_forward = Seconds(8e-6);
  constants.gemm_feed = 32.0;
  constants.gemm_vector_feed = 4.0;
  constants.gemm_start = 64.0;
  constants.gemm_quantisation = 0.7;
  constants.attention_half_intensity = 60.0;
  constants.multiprocessors_else = 100.0;
  constants.matrix_over_vector = {{"9.0", 15.0}};
  constants.step_overhead = Ratio(0.03);
  return constants;
}

facts::PacePlan planned(const Program& program, const facts::Machine& machine,
                        const facts::EfficiencyConstants& constants = usual()) {
  const facts::Job job = test::job_of(64, 8, 8);
  Request request;
  request.program = &program;
  request.job = &job;
  request.machine = &machine;
  request.efficiency = &constants;
  request.model_flops_per_sample = Flops(1e12);
  const auto plan = step_time(request);
  EXPECT_TRUE(plan.has_value());
  return plan.value_or(facts::PacePlan());
}

double seconds_of(const Program& program, const facts::Machine& machine) {
  return planned(program, machine).step.value_or(Seconds(-1.0)).value();
}

// Sums of many parts differ in the last digits with their order.
constexpr double kRounding = 1.0 + 1e-12;

TEST(PaceProperties, ThePartsSumToTheStepAndNoneIsNegative) {
  Random random{std::mt19937(1)};
  for (int i = 0; i < kPrograms; ++i) {
    const facts::PacePlan plan = planned(random_program(random), test::round_machine());
    ASSERT_TRUE(plan.step.has_value());
    EXPECT_EQ(plan.step->value(), plan.breakdown.total().value());
    for (Seconds part : {plan.breakdown.compute, plan.breakdown.memory_bound,
                         plan.breakdown.exposed_communication, plan.breakdown.optimizer}) {
      EXPECT_GE(part.value(), 0.0);
    }
    EXPECT_GE(plan.hfu->value(), plan.mfu->value());
  }
}

TEST(PaceProperties, AFasterMachineIsNeverSlower) {
  Random random{std::mt19937(2)};
  using Change = void (*)(facts::Machine&);
  const Change changes[] = {
      [](facts::Machine& m) { m.gpu.memory_bandwidth.value = BytesPerSecond(3e12); },
      [](facts::Machine& m) { m.gpu.peak.bf16.value = FlopsPerSecond(1.5e15); },
      [](facts::Machine& m) { m.gpu.peak.fp32.value = FlopsPerSecond(2e14); },
      [](facts::Machine& m) { m.gpu.peak.tf32.value = FlopsPerSecond(7e14); },
      [](facts::Machine& m) { m.gpu.link.value = BytesPerSecond(9e11); },
      [](facts::Machine& m) { m.network_per_gpu.value = BytesPerSecond(1e11); },
  };
  for (int i = 0; i < kPrograms; ++i) {
    const Program program = random_program(random);
    const double before = seconds_of(program, test::round_machine());
    for (const Change change : changes) {
      facts::Machine faster = test::round_machine();
      change(faster);
      EXPECT_LE(seconds_of(program, faster), before * kRounding);
    }
  }
}

TEST(PaceProperties, ALongerProgramIsNeverFaster) {
  Random random{std::mt19937(3)};
  for (int i = 0; i < kPrograms; ++i) {
    Program program = random_program(random);
    const double before = seconds_of(program, test::round_machine());
    Body& body = program.step.back().phases[static_cast<std::size_t>(random.whole(0, 4))].bodies[0];
    if (random.coin()) {
      append(program, body, random_work(random));
    } else {
      append(program, body, random_communication(random));
    }
    EXPECT_GE(seconds_of(program, test::round_machine()) * kRounding, before);
    ++body.repeat;
    EXPECT_GE(seconds_of(program, test::round_machine()) * kRounding, before);
  }
}

TEST(PaceProperties, OverlapIsNeverWorseThanWaiting) {
  Random random{std::mt19937(4)};
  for (int i = 0; i < kPrograms; ++i) {
    Program program = random_program(random);
    const double overlapped = seconds_of(program, test::round_machine());
    for (step::Communication& communication : program.communication) {
      communication.overlaps = false;
    }
    EXPECT_LE(overlapped, seconds_of(program, test::round_machine()) * kRounding);
  }
}

TEST(PaceProperties, ALargerGemmNeverTakesLess) {
  // Among aligned shapes: a ragged one may take longer than the next aligned one.
  Random random{std::mt19937(5)};
  const facts::Machine machine = test::round_machine();
  for (int i = 0; i < kPrograms; ++i) {
    const std::int64_t m = 8 * random.whole(1, 1000);
    const std::int64_t n = 8 * random.whole(1, 1000);
    const std::int64_t k = 8 * random.whole(1, 1000);
    Missing missing;
    auto time = [&](std::int64_t a, std::int64_t b, std::int64_t c) {
      return time_of(test::gemm(a, b, c), machine.gpu, usual(), missing)->seconds.value();
    };
    const double before = time(m, n, k);
    EXPECT_LE(before, time(m + 8, n, k) * kRounding);
    EXPECT_LE(before, time(m, n + 8, k) * kRounding);
    EXPECT_LE(before, time(m, n, k + 8) * kRounding);
  }
}

}  // namespace
}  // namespace steelyard::pace
