// Fitting the free constants: it finds what made the measurements, stays inside of the bounds, and
// does the same every time.
#include "pace/fit.h"

#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <string>
#include <vector>

#include "pace/figures.h"
#include "pace/free_constants.h"
#include "pace/roofline.h"
#include "pace/small_programs.h"

namespace steelyard::pace {
namespace {

using step::Body;
using step::PhaseKind;
using step::Program;

facts::EfficiencyConstants usual() {
  facts::EfficiencyConstants constants = test::halves();
  constants.gemm = Ratio(0.70);
  constants.memory = Ratio(0.80);
  constants.gemm_tf32 = Ratio(0.8);
  constants.gemm_vector = Ratio(0.9);
  constants.gemm_peak = Ratio(0.95);
  constants.link = Ratio(0.78);
  constants.network = Ratio(0.8);
  constants.host_peer = Ratio(0.45);
  constants.overlap_slowdown = Ratio(0.19);
  constants.step_overhead = Ratio(0.03);
  constants.convolution_layout = 1.0;
  constants.attention_half_intensity = 60.0;
  constants.kernel_launch = Seconds(6e-6);
  constants.kernel_launch_forward = Seconds(8e-6);
  constants.kernel_floor = Seconds(2.5e-6);
  return constants;
}

// Steps of products and of traffic in several proportions.
class Steps {
 public:
  explicit Steps(std::size_t count) {
    machine_ = test::round_machine();
    job_ = test::job_of(8);
    for (std::size_t i = 0; i < count; ++i) {
      Program program;
      Body body;
      body.repeat = 8;
      const double share = static_cast<double>(i + 1) / static_cast<double>(count + 1);
      test::append(program, body, test::compute_for(0.020 * share));
      test::append(program, body, test::stream_for(0.020 * (1.0 - share)));
      program.step.push_back({1, {test::phase_of(PhaseKind::forward, {body})}});
      programs_.push_back(std::move(program));
    }
  }

  // Measured as `truth` has it.
  [[nodiscard]] std::vector<Observation> measured(const facts::EfficiencyConstants& truth) const {
    std::vector<Observation> observations;
    for (const Program& program : programs_) {
      Request request;
      request.program = &program;
      request.job = &job_;
      request.machine = &machine_;
      request.efficiency = &truth;
      const auto plan = step_time(request);
      EXPECT_TRUE(plan && plan->step);
      observations.push_back({request, plan->step.value_or(Seconds(1.0)), "made-up", 1.0});
    }
    return observations;
  }

 private:
  facts::Machine machine_;
  facts::Job job_;
  std::deque<Program> programs_;
};

double named(const Fit& fit, const std::string& key) {
  for (const FittedConstant& one : fit.constants) {
    if (one.path.size() == 1 && one.path.front() == key) return one.value;
  }
  ADD_FAILURE() << key;
  return 0.0;
}

double largest(const std::vector<double>& logs) {
  double most = 0.0;
  for (const double log : logs) most = std::max(most, std::abs(log));
  return most;
}

TEST(Fit, FindsTheConstantsThatMadeTheMeasurements) {
  const Steps steps(40);
  facts::EfficiencyConstants truth = usual();
  truth.gemm = Ratio(0.60);
  truth.memory = Ratio(0.90);
  const std::vector<Observation> observations = steps.measured(truth);
  const auto before = residuals(observations, usual());
  const auto fitted = fit(observations, usual());
  ASSERT_TRUE(before && fitted);
  const auto after = residuals(observations, fitted->efficiency);
  ASSERT_TRUE(after.has_value());
  // Held near where they start, so not all the way.
  EXPECT_LT(largest(*after), 0.25 * largest(*before));
  EXPECT_LT(named(*fitted, "gemm_ratio"), 0.65);
  EXPECT_GT(named(*fitted, "memory_ratio"), 0.85);
}

TEST(Fit, IsTheSameEveryTime) {
  const Steps steps(12);
  facts::EfficiencyConstants truth = usual();
  truth.gemm = Ratio(0.8);
  const std::vector<Observation> observations = steps.measured(truth);
  const auto one = fit(observations, usual()), other = fit(observations, usual());
  ASSERT_TRUE(one && other);
  ASSERT_EQ(one->constants.size(), other->constants.size());
  for (std::size_t i = 0; i < one->constants.size(); ++i) {
    EXPECT_EQ(one->constants[i].path, other->constants[i].path);
    EXPECT_EQ(one->constants[i].value, other->constants[i].value);
  }
}

TEST(Fit, NeverLeavesTheBounds) {
  const Steps steps(12);
  std::vector<Observation> observations = steps.measured(usual());
  for (const double times : {20.0, 0.02}) {  // measurements that no constants explain
    std::vector<Observation> wild = observations;
    for (Observation& one : wild) one.measured = one.measured * times;
    const auto fitted = fit(wild, usual());
    ASSERT_TRUE(fitted.has_value());
    for (const FreeConstant& constant : free_constants(usual())) {
      const double value = constant.get(fitted->efficiency);
      EXPECT_GE(value, constant.low * (1.0 - 1e-9)) << constant.path.back();
      EXPECT_LE(value, constant.high * (1.0 + 1e-9)) << constant.path.back();
    }
  }
}

TEST(Fit, WhatIsInPrintIsNotFreeOnThatArchitectureAlone) {
  facts::EfficiencyConstants constants = usual();
  facts::EfficiencyConstants here = usual();
  here.architecture = "printed";
  here.printed = {"attention_forward_ratio"};
  constants.by_architecture = {here, usual()};
  constants.by_architecture.back().architecture = "fitted";
  std::vector<std::string> free;
  for (const FreeConstant& constant : free_constants(constants)) {
    if (constant.path.size() == 3 && constant.path.back().starts_with("attention_")) {
      free.push_back(constant.path[1] + "." + constant.path[2]);
    }
  }
  EXPECT_EQ(free, (std::vector<std::string>{"fitted.attention_forward_ratio",
                                            "printed.attention_backward_ratio",
                                            "fitted.attention_backward_ratio"}));
}

TEST(Fit, OneWildMeasurementDoesNotRule) {
  const Steps steps(40);
  facts::EfficiencyConstants truth = usual();
  std::vector<Observation> observations = steps.measured(truth);
  observations[7].measured = observations[7].measured * 10.0;
  const auto fitted = fit(observations, usual());
  ASSERT_TRUE(fitted.has_value());
  EXPECT_NEAR(named(*fitted, "gemm_ratio"), 0.70, 0.03);
  EXPECT_NEAR(named(*fitted, "memory_ratio"), 0.80, 0.03);
}

TEST(Fit, TheBestProductOfACardIsFreeWhereNobodyPrintedIt) {
  facts::EfficiencyConstants constants = usual();
  constants.best_product = Ratio(0.8);
  constants.kernel_floor = Seconds();
  facts::Gpu gpu = test::round_machine().gpu;
  Missing missing;
  const step::Work product = test::gemm(8192, 8192, 8192);
  const auto seconds = [&] { return time_of(product, gpu, constants, missing)->seconds.value(); };
  const double before = seconds();
  constants.best_product_of[gpu.id] = 0.8;
  EXPECT_EQ(seconds(), before);
  for (FreeConstant& free : free_constants(constants)) {
    if (free.path.front() != "best_product_of") continue;
    EXPECT_EQ(free.path.back(), gpu.id);
    free.set(constants, 0.9);
  }
  EXPECT_NEAR(seconds(), before * 8.0 / 9.0, 1e-9);
  gpu.measured_bf16 = {FlopsPerSecond(800e12), facts::Provenance::catalogue};  // counts more
  EXPECT_NEAR(seconds(), before, 1e-9);
}

}  // namespace
}  // namespace steelyard::pace
