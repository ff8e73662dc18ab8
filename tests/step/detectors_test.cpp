// What detectors hold beside their layers' results: pairs of anchors and objects while they are
// matched, inputs of frozen norms under PyTorch 1.0, fp32 inputs of norms, fp32 gradients of master
// weights from step to step.
#include <gtest/gtest.h>

#include <algorithm>

#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

using facts::Array;
using facts::Object;

constexpr std::int64_t kMap = kSamples * 8 * 16 * 16;  // elements of the convolution's result

model::Graph network_of(Array layers) {
  layers.insert(layers.begin(), Object{{"conv", "conv"}, {"out", 8}, {"kernel", 3}, {"stride", 2}});
  for (Object end : {Object{{"global_pool", "pool"}}, Object{{"linear", "fc"}, {"out", "=classes"}},
                     Object{{"loss", "classification"}}}) {
    layers.emplace_back(std::move(end));
  }
  return graph_of({"small detector",
                   Object{{"model_type", "layers"},
                          {"image_size", 32},
                          {"num_classes", 10},
                          {"network", Array{Object{{"block", "embed"}, {"layers", layers}}}}},
                   ""});
}

model::Graph small_network(const Object& norm, std::int64_t objects) {
  return network_of({norm, Object{{"activation", "relu"}, {"in_place", true}},
                     Object{{"match", "match"}, {"anchors", "=h * w * 9"}, {"objects", objects}}});
}

struct Held {
  std::int64_t states = 0, peak = 0, kept = 0;  // bytes; states: of the optimizer; kept: when
};                                              // backward begins

Held held(const model::Graph& graph, const facts::Value& versions, facts::Job job = small_job()) {
  const Program program = program_for(graph, job, profile_of("pytorch", versions));
  Held result;
  std::int64_t alive = 0;
  const auto each = [&](const Event& event, std::int64_t) {
    if (event.kind != EventKind::allocate && event.kind != EventKind::free) return;
    const std::int64_t bytes = program.slots[static_cast<std::size_t>(event.index)].bytes.value();
    alive += event.kind == EventKind::allocate ? bytes : -bytes;
    result.peak = std::max(result.peak, alive);
  };
  play(program, program.first_optimizer, each);
  result.states = alive;
  play(program, program.setup, each);
  for (const Pass& pass : program.step) {
    for (const Phase& phase : pass.phases) {
      if (phase.kind == PhaseKind::backward) {
        result.kept = alive;
        return result;
      }
      play(program, {Pass{1, {phase}}}, each);
    }
  }
  return result;
}

facts::Job in_fp32() {
  facts::Job job = small_job();
  job.train.precision = facts::Precision::fp32;
  return job;
}

facts::Job in_fp16() {
  facts::Job job = small_job();
  job.train.precision = facts::Precision::fp16;
  job.train.optimizer.name = facts::OptimizerName::sgd_momentum;
  job.train.optimizer.master_weights = true;
  return job;
}

const Object kFrozen = {{"frozen_norm", "bn"}};
const Object kNorm = {{"batch_norm", "bn"}};

// 16 x 16 pixels with 9 anchors each and 50 objects: 36 bytes of every pair, in fp32 and in fp16,
// and nothing of them is left.
TEST(Detectors, MatchingHoldsEveryPairForAMoment) {
  for (const facts::Job& job : {in_fp32(), in_fp16()}) {
    const Held none = held(small_network(kNorm, 0), {}, job);
    const Held many = held(small_network(kNorm, 50), {}, job);
    EXPECT_EQ(many.kept, none.kept);
    EXPECT_GT(many.peak - none.kept, 16 * 16 * 9 * 50 * 36 - 4 * kMap * 4);
    EXPECT_LE(many.peak - none.peak, 16 * 16 * 9 * 50 * 36);
  }
}

// x * scale + bias: PyTorch 1.0.1 keeps x, 1.1.0 does not (measured on both).
// Written and read once for each picture of the batch, one after the other.
TEST(Detectors, MatchingMovesThePairsOfEveryPicture) {
  const Program program = program_for(small_network(kNorm, 50), in_fp32(), profile_of("pytorch"));
  double moved = 0.0;
  for (const Work& work : program.work) {
    const std::string& name = program.names[static_cast<std::size_t>(work.name)];
    if (name.ends_with("box_iou")) moved += work.traffic.real();
  }
  EXPECT_EQ(moved, 2.0 * kSamples * 16 * 16 * 9 * 50 * 36);
}

TEST(Detectors, TorchOneKeepsWhatAFrozenNormReads) {
  const model::Graph graph = small_network(kFrozen, 0);
  const std::int64_t before = held(graph, Object{{"torch", "1.0"}}, in_fp32()).kept;
  const std::int64_t since = held(graph, Object{{"torch", "1.1"}}, in_fp32()).kept;
  EXPECT_GE(before - since, kMap * 4);
  EXPECT_LT(before - since, kMap * 4 + 1024);
}

// A relu between two convolutions: its input beside its result, which the second one keeps.
TEST(Detectors, OldRelusKeepTheirInputs) {
  const auto kept = [](const char* torch, bool in_place) {
    const model::Graph graph = network_of({Object{{"activation", "relu"}, {"in_place", in_place}},
                                           Object{{"conv", "second"}, {"out", 8}, {"kernel", 3}}});
    return held(graph, Object{{"torch", torch}}, in_fp32()).kept;
  };
  EXPECT_EQ(kept("1.9", false) - kept("1.9", true), kMap * 4);
  EXPECT_EQ(kept("1.10", false), kept("1.10", true));
}

// Under autocast fp32 buffers make an fp32 result, which the relu behind it keeps.
TEST(Detectors, FrozenNormsAreFp32UnlessTheyCast) {
  Object casts = kFrozen;
  casts.emplace_back("casts", true);
  facts::Job job = small_job();
  job.train.precision = facts::Precision::fp16_mixed;
  EXPECT_EQ(held(small_network(kFrozen, 0), {}, job).kept,
            held(small_network(casts, 0), {}, job).kept + kMap * 2 + 8 * 2);  // and 8 factors
}

// Norms that are fed x.float() keep it: two bytes more of each element.
TEST(Detectors, WideNormsKeepFp32Inputs) {
  Object wide = kNorm;
  wide.emplace_back("wide", true);
  EXPECT_EQ(held(small_network(wide, 0), {}, in_fp16()).kept,
            held(small_network(kNorm, 0), {}, in_fp16()).kept + kMap * 2);
  EXPECT_EQ(held(small_network(wide, 0), {}, in_fp32()).kept,
            held(small_network(kNorm, 0), {}, in_fp32()).kept);
}

// Fp16OptimizerHook zeroes the master weights' gradients and never frees them.
TEST(Detectors, MasterGradientsStayUnderMmdetection) {
  const model::Graph graph = small_network(kNorm, 0);
  const std::int64_t more = held(graph, Object{{"mmdetection", "2.0"}}, in_fp16()).states -
                            held(graph, {}, in_fp16()).states;
  EXPECT_EQ(more, 4 * model::parameter_count(graph).value());
  EXPECT_EQ(held(graph, Object{{"mmdetection", "2.0"}}, in_fp32()).states,
            held(graph, {}, in_fp32()).states);
}

}  // namespace
}  // namespace steelyard::step
