#include "pace/walk.h"

#include <gtest/gtest.h>

#include "pace/pieces.h"
#include "pace/small_programs.h"

namespace steelyard::pace {
namespace {

using step::Body;
using step::PhaseKind;
using step::Program;
using test::append;
using test::compute_for;
using test::phase_of;
using test::send_for;
using test::stream_for;

// Prices in seconds by index, as the small programs' names promise.
// Communication steals `slowdown` of the work beside it.
Prices priced(const Program& program, double slowdown = 0.0) {
  Prices prices;
  Missing missing;
  const facts::Machine machine = test::round_machine();
  for (const step::Work& work : program.work) {
    prices.work.push_back(*time_of(work, machine.gpu, test::halves(), missing));
  }
  for (const step::Communication& communication : program.communication) {
    prices.communication.push_back(Seconds(communication.payload.real() / 500e9));
    prices.stolen.push_back(prices.communication.back() * (slowdown / (1.0 + slowdown)));
  }
  return prices;
}

TEST(Walk, WhatOverlapsIsExposedOnlyWhereItOutlastsTheWork) {
  Program program;
  Body body;
  body.repeat = 4;
  append(program, body, compute_for(0.010));
  append(program, body, stream_for(0.002));
  append(program, body, send_for(0.015, true));
  program.step.push_back({1, {phase_of(PhaseKind::forward, {body})}});
  const Walked walked = walk(program, priced(program));
  // Each of 4 layers: 10 + 2 ms of work beside 15 ms of sending: 3 ms exposed.
  EXPECT_NEAR(walked.breakdown.compute.value(), 0.040, 1e-12);
  EXPECT_NEAR(walked.breakdown.memory_bound.value(), 0.008, 1e-12);
  EXPECT_NEAR(walked.breakdown.exposed_communication.value(), 0.012, 1e-12);
  EXPECT_NEAR(walked.breakdown.total().value(), 0.060, 1e-12);
  EXPECT_EQ(walked.kernels, 8);
}

// What crosses the border of a stage is in a body of its own and runs beside the whole phase.
TEST(Walk, WhatCrossesABorderRunsBesideThePhase) {
  Program program;
  Body border, layers, waits;
  step::Communication crossing = send_for(0.015, true);
  crossing.kind = step::Collective::send;
  append(program, border, crossing);
  layers.repeat = 2;
  append(program, layers, compute_for(0.010));
  append(program, waits, send_for(0.004, false));
  program.step.push_back({1, {phase_of(PhaseKind::forward, {border, layers, waits})}});
  EXPECT_NEAR(walk(program, priced(program)).breakdown.exposed_communication.value(), 0.004, 1e-12);
  program.step.front().phases.front().bodies[1].repeat = 1;
  EXPECT_NEAR(walk(program, priced(program)).breakdown.exposed_communication.value(), 0.009, 1e-12);
}

TEST(Walk, CommunicationBesideWorkSlowsIt) {
  Program program;
  Body hidden, longer;
  append(program, hidden, compute_for(0.010));
  append(program, hidden, send_for(0.006, true));
  append(program, longer, compute_for(0.010));
  append(program, longer, send_for(0.015, true));
  program.step.push_back({1, {phase_of(PhaseKind::forward, {hidden, longer})}});
  const Prices prices = priced(program, 0.2);
  // First body: in 6 ms of sending 6 / 1.2 = 5 ms of the work get done, 5 ms remain: 11 ms, 1
  // added. Second: 15 ms of sending cover 12.5 ms of work, so all 10: 15 ms, 5 added.
  EXPECT_NEAR(walk(program, prices).breakdown.exposed_communication.value(), 0.006, 1e-12);
  EXPECT_NEAR(walk(program, prices).breakdown.total().value(), 0.026, 1e-12);
}

TEST(Walk, WhatDoesNotOverlapIsExposedWhole) {
  Program program;
  Body body;
  append(program, body, compute_for(0.010));
  append(program, body, send_for(0.004, false));
  append(program, body, send_for(0.006, true));
  program.step.push_back({1, {phase_of(PhaseKind::backward, {body})}});
  const Walked walked = walk(program, priced(program));
  EXPECT_NEAR(walked.breakdown.exposed_communication.value(), 0.004, 1e-12);
  EXPECT_NEAR(walked.breakdown.total().value(), 0.014, 1e-12);
}

TEST(Walk, CommunicationHidesBehindItsOwnBodyOnly) {
  Program program;
  Body sends, works;
  append(program, sends, send_for(0.005, true));
  append(program, works, compute_for(0.010));
  program.step.push_back({1, {phase_of(PhaseKind::backward, {works, sends})}});
  EXPECT_NEAR(walk(program, priced(program)).breakdown.exposed_communication.value(), 0.005, 1e-12);
}

TEST(Walk, PassesRepeatAndTheOptimizerIsItsOwnPart) {
  Program program;
  Body forward, update;
  append(program, forward, compute_for(0.010));
  append(program, update, stream_for(0.003, step::WorkKind::optimizer));
  append(program, update, stream_for(0.001));
  program.step.push_back({7, {phase_of(PhaseKind::forward, {forward})}});
  program.step.push_back(
      {1, {phase_of(PhaseKind::forward, {forward}), phase_of(PhaseKind::optimizer, {update})}});
  const Walked walked = walk(program, priced(program));
  EXPECT_NEAR(walked.breakdown.compute.value(), 0.080, 1e-12);
  EXPECT_NEAR(walked.breakdown.optimizer.value(), 0.004, 1e-12);
  EXPECT_NEAR(walked.breakdown.total().value(), 0.084, 1e-12);
}

step::Work host_work(double seconds, step::WorkKind kind) {
  step::Work work;
  work.kind = kind;
  work.traffic = Bytes(static_cast<std::int64_t>(seconds * 1e9));
  return work;
}

// Copies run beside their layer and count where they outlast it; in the optimizer's phase, and for
// what the host computes, the GPU waits.
TEST(Walk, WhatTheHostDoesIsOffload) {
  Program program;
  Body layer, update;
  append(program, layer, compute_for(0.010));
  append(program, layer, host_work(0.012, step::WorkKind::transfer));
  append(program, update, host_work(0.005, step::WorkKind::host));
  append(program, update, host_work(0.003, step::WorkKind::transfer));
  program.step.push_back({4, {phase_of(PhaseKind::backward, {layer})}});
  program.step.push_back({1, {phase_of(PhaseKind::optimizer, {update})}});
  Prices prices = priced(program);
  for (std::size_t i = 0; i < program.work.size(); ++i) {
    if (on_the_host(program.work[i].kind)) {
      prices.work[i].seconds = Seconds(program.work[i].traffic.real() / 1e9);
    }
  }
  const Walked walked = walk(program, prices);
  EXPECT_NEAR(walked.breakdown.compute.value(), 0.040, 1e-12);
  EXPECT_NEAR(walked.breakdown.offload.value(), 4 * 0.002 + 0.008, 1e-12);
  EXPECT_NEAR(walked.breakdown.total().value(), 0.056, 1e-12);
}

// The drive and the link work at once beside a layer; beside the host's step the drive counts where
// it outlasts that.
TEST(Walk, TheDriveRunsBesideTheLayerAndBesideTheHostsStep) {
  Program program;
  Body layer, table, update;
  append(program, layer, compute_for(0.010));
  append(program, layer, host_work(0.012, step::WorkKind::transfer));
  append(program, layer, host_work(0.017, step::WorkKind::drive_read));
  append(program, table, compute_for(0.001));
  append(program, table, host_work(0.004, step::WorkKind::fetch));
  append(program, update, host_work(0.002, step::WorkKind::drive_read));
  append(program, update, host_work(0.005, step::WorkKind::host));
  append(program, update, host_work(0.006, step::WorkKind::drive_write));
  program.work.back().beside_host = true;
  program.step.push_back({4, {phase_of(PhaseKind::forward, {layer})}});
  program.step.push_back({1, {phase_of(PhaseKind::forward, {table})}});
  program.step.push_back({1, {phase_of(PhaseKind::optimizer, {update})}});
  Prices prices = priced(program);
  for (std::size_t i = 0; i < program.work.size(); ++i) {
    if (on_the_host(program.work[i].kind)) {
      prices.work[i].seconds = Seconds(program.work[i].traffic.real() / 1e9);
    }
  }
  const Walked walked = walk(program, prices);
  EXPECT_NEAR(walked.breakdown.compute.value(), 0.041, 1e-12);
  EXPECT_NEAR(walked.breakdown.offload.value(), 4 * 0.007 + 0.004 + 0.002 + 0.006, 1e-12);
}

TEST(Walk, TheSetUpIsNotPartOfTheStep) {
  Program program;
  Body body;
  append(program, body, compute_for(0.010));
  program.setup.push_back({1, {phase_of(PhaseKind::setup, {body})}});
  EXPECT_EQ(walk(program, priced(program)).breakdown.total().value(), 0.0);
}

TEST(Walk, APhaseWaitsForTheHostToLaunchItsKernels) {
  Program program;
  Body body;
  for (int i = 0; i < 10; ++i) append(program, body, stream_for(0.0001));
  append(program, body, send_for(0.001, false));
  body.repeat = 2;
  program.step.push_back({1, {phase_of(PhaseKind::forward, {body})}});
  Prices prices = priced(program);
  // 20 kernels of 0.1 ms and 2 ms of sending: 4 ms. At 0.5 ms a launch the host needs 10 ms.
  prices.kernel_launch = Seconds(0.0005);
  prices.kernel_launch_forward = Seconds(0.0005);
  const Walked slow = walk(program, prices);
  EXPECT_NEAR(slow.breakdown.total().value(), 0.010, 1e-12);
  EXPECT_NEAR(slow.host_bound.value(), 0.006, 1e-12);
  EXPECT_NEAR(slow.breakdown.memory_bound.value(), 0.008, 1e-12);
  // At 0.2 ms it is exactly in time.
  prices.kernel_launch = Seconds(0.0002);
  prices.kernel_launch_forward = Seconds(0.0002);
  EXPECT_NEAR(walk(program, prices).host_bound.value(), 0.0, 1e-12);
}

// Per iteration: 4 ms of the GPU that one launch asks for, a copy that the host reads, 4 launches
// of 0.5 ms with 0.1 ms of work each. Running ahead, the host would launch these beside the 4 ms.
// A checkpoint runs the module's forward() again, which Python drives as in the forward pass.
TEST(Walk, WhatIsRecomputedIsLaunchedByPython) {
  Program program;
  Body body;
  body.repeat = 100;
  step::Work again = stream_for(1e-6);
  again.recomputed = true;
  append(program, body, again);
  append(program, body, stream_for(1e-6));
  program.step.push_back({1, {phase_of(PhaseKind::backward, {body})}});
  Prices prices = priced(program);
  prices.kernel_launch = Seconds(5e-6);
  prices.kernel_launch_forward = Seconds(20e-6);
  const Walked walked = walk(program, prices);
  EXPECT_NEAR(walked.breakdown.total().value(), 100 * (20e-6 + 5e-6), 1e-12);
  EXPECT_NEAR(walked.host_bound.value(), 100 * (25e-6 - 2e-6), 1e-12);
  // Where the host reads of the GPU it waits for the kernel before it goes on.
  prices.work.front().read_by_host = true;
  EXPECT_NEAR(walk(program, prices).breakdown.total().value(), 100 * (20e-6 + 1e-6 + 5e-6) + 1e-6,
              1e-9);
}

TEST(Walk, AHostThatReadsOfTheGpuCannotRunAhead) {
  Program program;
  Body body;
  append(program, body, stream_for(0.004));
  append(program, body, stream_for(0.0));
  for (int i = 0; i < 4; ++i) append(program, body, stream_for(0.0001));
  body.repeat = 10;
  program.step.push_back({1, {phase_of(PhaseKind::forward, {body})}});
  Prices prices = priced(program);
  prices.kernel_launch_forward = Seconds(0.0005);
  EXPECT_NEAR(walk(program, prices).breakdown.total().value(), 0.044, 1e-12);
  prices.work[1].read_by_host = true;
  // 0.5 ms until the first kernel runs. Then 4 ms; 4 launches, the last one's work beside the next
  // iteration's first launch.
  const double iteration = 0.004 + 5 * 0.0005;
  EXPECT_NEAR(walk(program, prices).breakdown.total().value(), 10 * iteration + 0.0001, 1e-12);
  // What a graph launches costs no time of the host's.
  prices.kernel_launch_forward = Seconds();
  EXPECT_NEAR(walk(program, prices).breakdown.total().value(), 0.044, 1e-12);
}

// 4 ms of shared experts beside two exchanges of 3 ms: 2 ms are waited for; of what is stolen, all.
TEST(Walk, SharedExpertsRunBesideTheExchanges) {
  Program program;
  Body body;
  append(program, body, send_for(0.003, false));
  append(program, body, compute_for(0.010));
  append(program, body, compute_for(0.004));
  append(program, body, send_for(0.003, false));
  append(program, body, send_for(0.001, false));
  program.step.push_back({1, {phase_of(PhaseKind::forward, {body})}});
  Prices prices = priced(program);
  EXPECT_NEAR(walk(program, prices).breakdown.exposed_communication.value(), 0.007, 1e-12);
  prices.work[1].beside_exchange = true;
  prices.beside_shared = {true, true, false};
  EXPECT_NEAR(walk(program, prices).breakdown.exposed_communication.value(), 0.003, 1e-12);
  double pieces = 0.0;
  const step::Phase& phase = program.step[0].phases[0];
  for (const Piece& piece : pieces_of(phase.bodies[0], phase, program, prices)) {
    pieces += piece.step.value();
  }
  EXPECT_NEAR(pieces, 0.017, 1e-12);
  prices.stolen = {Seconds(0.002), Seconds(0.002), Seconds()};
  EXPECT_NEAR(walk(program, prices).breakdown.exposed_communication.value(), 0.005, 1e-12);
}

TEST(Walk, RecomputedArithmeticIsCounted) {
  Program program;
  Body body;
  body.repeat = 3;
  step::Work again = compute_for(0.010);
  again.recomputed = true;
  append(program, body, again);
  append(program, body, compute_for(0.010));
  step::Work pointwise = stream_for(0.001);
  pointwise.recomputed = true;
  pointwise.flops = Flops(1e9);
  append(program, body, pointwise);
  program.step.push_back({2, {phase_of(PhaseKind::backward, {body})}});
  // 2 passes * 3 layers * 0.010 s * 500e12 flop/s; the pointwise kernel does not count.
  EXPECT_DOUBLE_EQ(walk(program, priced(program)).recomputed.value(), 6 * 5e12);
}

// Megatron-LM's overlap-param-gather: what the optimizer's phase gathers runs beside the forward
// pass of one micro-batch of the next step.
TEST(Walk, ParametersGatheredAheadWaitForWhatOneForwardPassDoesNotHide) {
  Program program;
  Body layers, update;
  layers.repeat = 2;
  append(program, layers, compute_for(0.010));
  append(program, update, send_for(0.025, false));
  program.step.push_back({4, {phase_of(PhaseKind::forward, {layers})}});
  program.step.push_back({1, {phase_of(PhaseKind::optimizer, {update})}});
  Prices prices = priced(program);
  EXPECT_NEAR(walk(program, prices).breakdown.exposed_communication.value(), 0.025, 1e-12);
  prices.gathers_beside_forward = true;
  EXPECT_NEAR(walk(program, prices).breakdown.exposed_communication.value(), 0.005, 1e-12);
  prices.stolen.back() = Seconds(0.008);  // it slows that pass, too
  EXPECT_NEAR(walk(program, prices).breakdown.exposed_communication.value(), 0.008, 1e-12);
}

}  // namespace
}  // namespace steelyard::pace
