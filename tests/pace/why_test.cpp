// The step told piece by piece sums to the step.
#include "pace/why.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "pace/small_programs.h"

namespace steelyard::pace {
namespace {

using step::Body;
using step::PhaseKind;
using step::Program;
using test::append;
using test::compute_for;
using test::send_for;
using test::stream_for;

step::Work copy_for(double seconds, step::WorkKind kind) {
  step::Work work;
  work.kind = kind;
  work.traffic = Bytes(static_cast<std::int64_t>(seconds * 32e9));  // half of 64 GB/s
  return work;
}

// Some 20 phases with everything that a step may have.
Program random_program(std::mt19937& engine) {
  const auto whole = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(engine);
  };
  const auto some = [&] { return 0.001 * whole(1, 9); };
  Program program;
  program.names = {"model.layers: linear", "model.layers: all_gather"};
  for (int p = 0; p < whole(1, 3); ++p) {
    step::Pass pass;
    pass.repeat = whole(1, 5);
    for (const PhaseKind kind : {PhaseKind::forward, PhaseKind::backward, PhaseKind::optimizer}) {
      if (kind == PhaseKind::optimizer && p > 0) continue;
      step::Phase phase{kind, {}};
      phase.repeat = whole(1, 3);  // a generation's tokens
      for (int b = 0; b < whole(1, 3); ++b) {
        Body body;
        body.layer = b == 0 ? "model.layers" : "head";
        body.repeat = whole(1, 5);
        body.reversed = kind == PhaseKind::backward;
        for (int e = 0; e < whole(1, 6); ++e) {
          switch (whole(0, 8)) {
            case 0: append(program, body, compute_for(some())); break;
            case 1: append(program, body, stream_for(some())); break;
            case 2: append(program, body, send_for(some(), true)); break;
            case 3: append(program, body, send_for(some(), false)); break;
            case 4: append(program, body, copy_for(some(), step::WorkKind::transfer)); break;
            case 5: append(program, body, copy_for(some(), step::WorkKind::fetch)); break;
            case 6: append(program, body, copy_for(some(), step::WorkKind::drive_read)); break;
            case 7:
              append(program, body, copy_for(some(), step::WorkKind::drive_write));
              program.work.back().beside_host = kind == PhaseKind::optimizer;
              break;
            default: append(program, body, copy_for(some(), step::WorkKind::host)); break;
          }
        }
        append(program, body, compute_for(some()));
        phase.bodies.push_back(std::move(body));
      }
      pass.phases.push_back(std::move(phase));
    }
    program.step.push_back(std::move(pass));
  }
  program.updates.end = static_cast<std::size_t>(whole(0, static_cast<int>(program.step.size())));
  program.updates.times = whole(1, 4);
  program.stages = whole(1, 4);
  program.micro_batches = whole(4, 9);
  return program;
}

facts::EfficiencyConstants with_all_costs() {
  facts::EfficiencyConstants constants = test::halves();
  constants.overlap_slowdown = Ratio(0.2);
  constants.step_overhead = Ratio(0.05);
  constants.kernel_launch = constants.kernel_launch_forward = Seconds(0.003);
  return constants;
}

TEST(PaceWhy, RowsAndCountedSpansSumToTheStepOfRandomPrograms) {
  std::mt19937 engine(3);
  const facts::Machine machine = test::round_machine();
  const facts::EfficiencyConstants constants = with_all_costs();
  const facts::Job job = test::job_of(8);
  for (int i = 0; i < 300; ++i) {
    const Program program = random_program(engine);
    Request request;
    request.program = &program;
    request.job = &job;
    request.machine = &machine;
    request.efficiency = &constants;
    request.host_memory = BytesPerSecond(100e9);
    request.drive_read = BytesPerSecond(200e9);
    request.drive_write = BytesPerSecond(100e9);
    const auto why = explain(request);
    ASSERT_TRUE(why.has_value());
    ASSERT_TRUE(why->pace.step.has_value());
    const double step = why->pace.step->value();
    double rows = 0.0;
    for (const facts::PaceRow& row : why->rows) {
      rows += row.step.value();
      EXPECT_GE(row.busy.value(), row.step.value() - 1e-12) << row.operation;
    }
    EXPECT_NEAR(rows, step, 1e-9 * step);
    double at = 0.0;
    for (const facts::PaceSpan& span : why->spans) {
      EXPECT_LE(span.start.value() + span.length.value(), step * (1.0 + 1e-9) + 1e-9 + step)
          << span.name;
      if (!span.counted) continue;
      EXPECT_NEAR(span.start.value(), at, 1e-9 * step) << span.name;
      at += span.length.value();
    }
    EXPECT_NEAR(at, step, 1e-9 * step);
  }
}

TEST(PaceWhy, SaysWhatIsHiddenAndWhatWouldHelp) {
  Program program;
  program.names = {"model.layers: linear", "model.layers: all_gather"};
  Body body;
  body.layer = "model.layers";
  body.repeat = 4;
  append(program, body, compute_for(0.010));
  program.work.back().recomputed = true;
  append(program, body, send_for(0.004, true));
  program.communication.back().name = 1;
  append(program, body, send_for(0.002, false));
  program.communication.back().name = 1;
  program.step.push_back({3, {test::phase_of(PhaseKind::backward, {body})}});
  const facts::Machine machine = test::round_machine();
  const facts::EfficiencyConstants constants = test::halves();
  const facts::Job job = test::job_of(8);
  Request request;
  request.program = &program;
  request.job = &job;
  request.machine = &machine;
  request.efficiency = &constants;
  const auto why = explain(request);
  ASSERT_TRUE(why.has_value());
  ASSERT_EQ(why->rows.size(), 2U);
  EXPECT_EQ(why->rows[0].operation, "linear");
  EXPECT_EQ(why->rows[0].bound, facts::PaceBound::arithmetic);
  EXPECT_EQ(why->rows[0].count, 12);
  EXPECT_NEAR(why->rows[0].step.value(), 0.120, 1e-9);
  // Each of 12 times 4 ms beside 10 ms of work and 2 ms alone.
  EXPECT_EQ(why->rows[1].operation, "all_gather");
  EXPECT_EQ(why->rows[1].bound, facts::PaceBound::link);
  EXPECT_EQ(why->rows[1].count, 24);
  EXPECT_NEAR(why->rows[1].busy.value(), 0.072, 1e-9);
  EXPECT_NEAR(why->rows[1].step.value(), 0.024, 1e-9);
  ASSERT_FALSE(why->helps.empty());
  EXPECT_NE(why->helps[0].what.find("train.recompute"), std::string::npos);
  EXPECT_NEAR(why->helps[0].at_most.value(), 0.120, 1e-9);
}

TEST(PaceWhy, WithoutAFigureOfTheMachineThereIsNothingToTell) {
  Program program;
  Body body;
  append(program, body, compute_for(0.010));
  program.step.push_back({1, {test::phase_of(PhaseKind::forward, {body})}});
  facts::Machine machine = test::round_machine();
  machine.gpu.peak.bf16 = {};
  const facts::EfficiencyConstants constants = test::halves();
  const facts::Job job = test::job_of(8);
  Request request;
  request.program = &program;
  request.job = &job;
  request.machine = &machine;
  request.efficiency = &constants;
  const auto why = explain(request);
  ASSERT_TRUE(why.has_value());
  EXPECT_FALSE(why->pace.step.has_value());
  EXPECT_FALSE(why->pace.missing.empty());
  EXPECT_TRUE(why->rows.empty());
  EXPECT_TRUE(why->spans.empty());
}

}  // namespace
}  // namespace steelyard::pace
