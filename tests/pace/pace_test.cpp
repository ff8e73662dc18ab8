#include "pace/pace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

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

struct Setting {
  Program program;
  facts::Job job = test::job_of(64);
  facts::Machine machine = test::round_machine();
  facts::EfficiencyConstants constants = test::halves();

  [[nodiscard]] Request request() const {
    Request request;
    request.program = &program;
    request.job = &job;
    request.machine = &machine;
    request.efficiency = &constants;
    return request;
  }
};

// One forward and backward of 0.1 s, of which 0.02 s recompute, and an optimizer of 0.1 s.
Setting small_setting() {
  Setting setting;
  Body work, update;
  append(setting.program, work, compute_for(0.08));
  step::Work again = compute_for(0.02);
  again.recomputed = true;
  append(setting.program, work, again);
  append(setting.program, update, stream_for(0.1, step::WorkKind::optimizer));
  setting.program.step.push_back(
      {1, {phase_of(PhaseKind::backward, {work}), phase_of(PhaseKind::optimizer, {update})}});
  return setting;
}

TEST(Pace, RatesFollowFromTheStep) {
  const Setting setting = small_setting();
  Request request = setting.request();
  request.model_flops_per_sample = Flops(5e12);
  request.tokens_per_sample = 1000;
  const auto plan = step_time(request);
  ASSERT_TRUE(plan.has_value());
  // 64 samples in 0.2 s: 320 samples/s, 320,000 tokens/s, 40,000 per GPU.
  EXPECT_DOUBLE_EQ(plan->step->value(), 0.2);
  EXPECT_DOUBLE_EQ(plan->samples->value(), 320.0);
  EXPECT_DOUBLE_EQ(plan->tokens->value(), 320'000.0);
  EXPECT_DOUBLE_EQ(plan->tokens_per_gpu->value(), 40'000.0);
  // 320 * 5e12 / 8 = 200 TFLOP/s per GPU of 1000: MFU 0.2. Recomputed: 0.02 s * 500e12 = 1e13 flop
  // in 0.2 s = 50 TFLOP/s more: HFU 0.25.
  EXPECT_DOUBLE_EQ(plan->model_flops_per_gpu->value(), 200e12);
  EXPECT_DOUBLE_EQ(plan->mfu->value(), 0.2);
  EXPECT_DOUBLE_EQ(plan->hfu->value(), 0.25);
  EXPECT_TRUE(plan->missing.empty());
  EXPECT_FALSE(plan->assumptions.empty());
}

TEST(Pace, TokensAreOnlyForText) {
  const Setting setting = small_setting();
  const auto plan = step_time(setting.request());
  ASSERT_TRUE(plan.has_value());
  EXPECT_TRUE(plan->samples.has_value());
  EXPECT_FALSE(plan->tokens.has_value());
  EXPECT_FALSE(plan->tokens_per_gpu.has_value());
}

TEST(Pace, AnUnknownPeakLeavesNoStepAndIsNamed) {
  Setting setting = small_setting();
  setting.machine.gpu.peak.bf16 = {};
  setting.machine.gpu.memory_bandwidth = {};
  const auto plan = step_time(setting.request());
  ASSERT_TRUE(plan.has_value());
  EXPECT_FALSE(plan->step.has_value());
  EXPECT_FALSE(plan->samples.has_value());
  EXPECT_FALSE(plan->mfu.has_value());
  EXPECT_EQ(plan->breakdown.total().value(), 0.0);
  EXPECT_EQ(plan->missing, (std::vector<std::string>{"dense bf16 peak rate of Round GPU",
                                                     "memory bandwidth of Round GPU"}));
}

TEST(Pace, WhatTheStepDoesNotUseNeedNotBeKnown) {
  Setting setting = small_setting();
  setting.machine.gpu.link = {};
  setting.machine.gpu.host_link = {};
  setting.machine.network_per_gpu = {};
  setting.machine.gpu.peak.fp8 = {};
  const auto plan = step_time(setting.request());
  ASSERT_TRUE(plan.has_value());
  EXPECT_TRUE(plan->step.has_value());
  EXPECT_TRUE(plan->missing.empty());
}

TEST(Pace, TheNetworkIsNeededOnceAGroupLeavesTheNode) {
  Setting setting = small_setting();
  setting.machine.network_per_gpu = {};
  step::Communication wide = send_for(0.001, false);
  wide.ranks = 16;
  append(setting.program, setting.program.step[0].phases[0].bodies[0], wide);
  const auto plan = step_time(setting.request());
  ASSERT_TRUE(plan.has_value());
  EXPECT_FALSE(plan->step.has_value());
  EXPECT_EQ(plan->missing, std::vector<std::string>{"network rate per GPU of round"});
}

TEST(Pace, ConstantsOfTheArchitectureReplaceTheGeneralOnes) {
  Setting setting = small_setting();
  setting.machine.gpu.architecture = "quick";
  facts::EfficiencyConstants quick = setting.constants;
  quick.architecture = "quick";
  quick.gemm = Ratio(1.0);
  setting.constants.by_architecture.push_back(quick);
  const auto plan = step_time(setting.request());
  ASSERT_TRUE(plan.has_value());
  // 0.1 s of GEMM at half the peak takes 0.05 s at all of it; the optimizer stays 0.1 s.
  EXPECT_DOUBLE_EQ(plan->step->value(), 0.15);
}

TEST(Pace, TheJobChoosesTheAttentionKernel) {
  Setting setting;
  Body body;
  step::Work attention;
  attention.kind = step::WorkKind::attention;
  attention.dtype = facts::DType::bf16;
  attention.flops = Flops(100e12);
  append(setting.program, body, attention);
  setting.program.step.push_back({1, {phase_of(PhaseKind::forward, {body})}});
  // 100 TFLOP at half of 1000 TFLOP/s: 0.2 s; cuDNN's at all of it: 0.1 s.
  EXPECT_DOUBLE_EQ(step_time(setting.request())->step->value(), 0.2);
  setting.job.train.attention = facts::Attention::cudnn;
  EXPECT_DOUBLE_EQ(step_time(setting.request())->step->value(), 0.1);
  // Before cuDNN 9 at two thirds of that, and only where its kernels run.
  setting.constants.attention_of["cudnn_before_9"] = {Ratio(2.0 / 3.0), Ratio(1.0), 9.0};
  Request older = setting.request();
  older.attention_before_cudnn_9 = true;
  EXPECT_NEAR(step_time(older)->step->value(), 0.15, 1e-12);
  setting.machine.gpu.compute_capability = 8.0;  // of Hopper's kernels alone
  EXPECT_DOUBLE_EQ(step_time(older)->step->value(), 0.1);
  setting.job.train.attention = facts::Attention::flash;
  EXPECT_DOUBLE_EQ(step_time(older)->step->value(), 0.2);
  Request engine = setting.request();
  engine.cudnn_attention = true;  // the framework's own choice of "flash"
  EXPECT_DOUBLE_EQ(step_time(engine)->step->value(), 0.1);
}

// 2 TB/s over 108 processors are 18.5 GB/s of each, 82 at most: streaming reaches half of
// 1 / (1 + 18.5 / 82) of the bandwidth, by loads of 8 bytes of 1 / (1 + 18.5 / 41).
TEST(Pace, TheFrameworksKernelsLoadSixteenBytesOnHopper) {
  Setting setting;
  setting.constants.loads_in_flight = Bytes(48 * 1024);
  setting.constants.memory_latency = Seconds(600e-9);
  setting.constants.loads_sharpness = 1.0;
  setting.constants.multiprocessors_else = 108.0;
  setting.job.train.precision = facts::Precision::bf16;
  setting.program.names = {"layers: add"};
  Body body;
  append(setting.program, body, stream_for(0.1));
  setting.program.step.push_back({1, {phase_of(PhaseKind::forward, {body})}});
  const auto seconds = [&](Loads loads) {
    Request request = setting.request();
    request.loads = loads;
    return step_time(request)->step->value();
  };
  const double each = 2000.0 / 108.0 / 81.92;
  EXPECT_NEAR(seconds(Loads::four_elements), 0.1 * (1.0 + 2.0 * each), 1e-9);
  EXPECT_NEAR(seconds(Loads::by_blocks_of_64), 0.1 * (1.0 + 4.0 * each), 1e-9);
  EXPECT_NEAR(seconds(Loads::bytes_16_since_hopper), 0.1 * (1.0 + each), 1e-9);
  setting.machine.gpu.compute_capability = 8.0;
  EXPECT_NEAR(seconds(Loads::bytes_16_since_hopper), 0.1 * (1.0 + 2.0 * each), 1e-9);
}

TEST(Pace, AnImpossibleConstantIsOurError) {
  Setting setting = small_setting();
  setting.constants.memory = Ratio(0.0);
  const auto plan = step_time(setting.request());
  ASSERT_FALSE(plan.has_value());
  EXPECT_EQ(plan.error().code, ErrorCode::internal);
  EXPECT_EQ(plan.error().subject, "calibration of pace: memory");
}

TEST(Pace, AnEmptyProgramIsOurError) {
  Setting setting;
  const auto plan = step_time(setting.request());
  ASSERT_FALSE(plan.has_value());
  EXPECT_EQ(plan.error().code, ErrorCode::internal);
}

TEST(Pace, AnEventBeyondTheListIsOurError) {
  Setting setting = small_setting();
  setting.program.work.pop_back();
  const auto plan = step_time(setting.request());
  ASSERT_FALSE(plan.has_value());
  EXPECT_EQ(plan.error().code, ErrorCode::internal);
  EXPECT_EQ(plan.error().subject, "program: event of work");
}

TEST(Pace, GraphsAreLaunchedAtOnce) {
  Setting setting = small_setting();
  setting.constants.kernel_launch = setting.constants.kernel_launch_forward = Seconds(10.0);
  Request request = setting.request();
  const auto eager = step_time(request);
  request.launched_as_graphs = true;
  const auto graphs = step_time(request);
  setting.constants.kernel_launch = setting.constants.kernel_launch_forward = Seconds();
  request.launched_as_graphs = false;
  const auto free_of_cost = step_time(request);
  ASSERT_TRUE(eager && graphs && free_of_cost);
  EXPECT_GT(eager->step->value(), 10.0);
  EXPECT_EQ(graphs->step->value(), free_of_cost->step->value());
}

// A layer of one product and one step of its experts, each of a microsecond of nothing on the GPU.
Setting layer_setting() {
  Setting setting;
  Body layer;
  const auto named = [&](std::string name) {
    step::Work work = compute_for(1e-6);
    work.name = static_cast<std::int32_t>(setting.program.names.size());
    setting.program.names.push_back(std::move(name));
    append(setting.program, layer, work);
  };
  named("self_attention.linear_qkv: mm");
  named("mlp.router: topk");
  named("mlp.experts.local_experts: index");
  named("output_layer: mm");
  setting.program.step.push_back({1, {phase_of(PhaseKind::forward, {layer})}});
  setting.job.framework = "megatron";
  setting.constants.calls_of["megatron"] = {Seconds(1.0), Seconds(100.0)};
  return setting;
}

// Hooks around a layer whose weight is gathered: one product forward, one of the input's gradient.
TEST(Pace, HooksOfGatheredWeightsAreTheHosts) {
  Setting setting;
  step::Body layer;
  for (const char* name : {"model.layers: mm", "model.layers: add",
                           "model.layers: mm_input_gradient", "model.layers: mm_weight_gradient"}) {
    step::Work work = compute_for(1e-6);
    work.name = static_cast<std::int32_t>(setting.program.names.size());
    setting.program.names.emplace_back(name);
    append(setting.program, layer, work);
  }
  setting.program.step.push_back({1, {phase_of(PhaseKind::forward, {layer})}});
  setting.constants.calls_of["zero3"] = {.layers = {}, .experts = {}, .weights = Seconds(1.0)};
  const auto seconds = [&] {
    const auto plan = step_time(setting.request());
    EXPECT_TRUE(plan.has_value() && plan->step);
    return plan->step->value();
  };
  const double without = seconds();
  setting.job.parallel.sharding = facts::Sharding::zero3;
  EXPECT_NEAR(seconds() - without, 2.0, 0.1);
  setting.job.parallel.sharding = facts::Sharding::zero2;
  EXPECT_EQ(seconds(), without);
}

double seconds_with(Setting& setting, const char* launches, const char* modules) {
  setting.job.megatron.emplace();
  setting.job.megatron->operators["launches"] = launches;
  setting.job.megatron->operators["graphed_modules"] = modules;
  const auto plan = step_time(setting.request());
  EXPECT_TRUE(plan.has_value());
  return plan.has_value() ? plan->step->value() : 0.0;
}

TEST(Pace, GraphsHoldTheModulesTheyName) {
  Setting setting = layer_setting();
  // The host takes 1 s for the product, the output layer each, 100 s for the router and the
  // experts.
  EXPECT_NEAR(seconds_with(setting, "one_by_one", ""), 202.0, 1e-3);
  EXPECT_NEAR(seconds_with(setting, "graphs_of_modules", " attn "), 201.0, 1e-3);
  EXPECT_NEAR(seconds_with(setting, "graphs_of_modules", " moe_router moe_preprocess "), 102.0,
              1e-3);
  EXPECT_NEAR(seconds_with(setting, "graphs_of_modules", " attn moe_router "), 101.0, 1e-3);
  EXPECT_NEAR(seconds_with(setting, "graphs_of_modules", "layers"), 1.0, 1e-3);
  EXPECT_LT(seconds_with(setting, "graphs", ""), 1e-4);
  setting.job.framework = "pytorch";
  EXPECT_LT(seconds_with(setting, "one_by_one", ""), 1e-4);
}

}  // namespace
}  // namespace steelyard::pace
