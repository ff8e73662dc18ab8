// What a job does to a layer's saved tensors: recomputation in all its forms, compiled code, ways
// to hold the logits, kernels in place, steps in backward, offloaded activations.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "step/block_trace.h"
#include "step/player.h"
#include "step/recompute_plan.h"
#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

using facts::Job;
using facts::RecomputeMethod;
using facts::RecomputeMode;
using facts::Sharding;

struct Mode {
  const char* text;
  std::function<void(Job&)> set;
};

void set_table(Job& job, std::optional<std::int64_t> every, std::optional<std::int64_t> layers,
               std::optional<RecomputeMethod> method) {
  job.train.recompute = {RecomputeMode::full, every, layers, method};
}

const std::vector<Mode> kRecompute = {
    {"none", [](Job&) {}},
    {"full", [](Job& j) { j.train.recompute.mode = RecomputeMode::full; }},
    {"selective", [](Job& j) { j.train.recompute.mode = RecomputeMode::selective; }},
    {"selective-op", [](Job& j) { j.train.recompute.mode = RecomputeMode::selective_op; }},
    {"every second", [](Job& j) { set_table(j, 2, {}, {}); }},
    {"chunks of two", [](Job& j) { set_table(j, {}, 2, RecomputeMethod::uniform); }},
    {"the first two", [](Job& j) { set_table(j, {}, 2, RecomputeMethod::block); }},
};
const std::vector<Mode> kOthers = {
    {"plain", [](Job&) {}},
    {"compiled", [](Job& j) { j.train.compile = true; }},
    {"chunked loss", [](Job& j) { j.train.loss = facts::Loss::chunked; }},
    {"fused loss", [](Job& j) { j.train.loss = facts::Loss::fused; }},
    {"compiled, chunked loss",
     [](Job& j) {
       j.train.compile = true;
       j.train.loss = facts::Loss::chunked;
     }},
    {"kernels",
     [](Job& j) {
       j.train.fused_kernels = {facts::FusedKernel::rmsnorm, facts::FusedKernel::rope,
                                facts::FusedKernel::swiglu, facts::FusedKernel::cross_entropy};
     }},
    {"steps in backward", [](Job& j) { j.train.optimizer.in_backward = true; }},
    {"offloaded", [](Job& j) { j.offload.activations = facts::OffloadTo::cpu; }},
};

class Modes : public ::testing::TestWithParam<std::size_t> {};

TEST_P(Modes, StepsLeaveBehindWhatTheyFound) {
  const Mode& recompute = kRecompute[GetParam()];
  for (const facts::ModelSource& source : {small_llama(), small_gpt2()}) {
    const model::Graph graph = graph_of(source);
    for (const Mode& other : kOthers) {
      for (const Sharding sharding : {Sharding::none, Sharding::fsdp}) {
        for (const auto precision : {facts::Precision::bf16_mixed, facts::Precision::bf16}) {
          for (const auto attention : {facts::Attention::flash, facts::Attention::math}) {
            for (const auto framework : {"pytorch", "transformers", "torchtitan"}) {
              Job job = small_job(4);
              job.parallel.sharding = sharding;
              job.train.precision = precision;
              job.train.attention = attention;
              recompute.set(job);
              other.set(job);
              const std::string what = graph.name + ", " + recompute.text + ", " + other.text +
                                       ", " + std::string(facts::name_of(sharding)) + ", " +
                                       std::string(facts::name_of(precision)) + ", " +
                                       std::string(framework);
              expect_balanced(program_for(graph, job, profile_of(framework)), what);
            }
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Recompute, Modes, ::testing::Range<std::size_t>(0, kRecompute.size()));

// --- Which layers ----------------------------------------------------------------------------

struct Planned {
  std::vector<bool> recomputed;     // by layer
  std::vector<std::size_t> chunks;  // layers that are recomputed together
};

Planned planned(const facts::RecomputeKeys& keys, std::int64_t layers) {
  const model::Graph graph = graph_of(small_llama());
  model::Segment segment = graph.segments[1];
  const std::size_t operators = segment.blocks[0].operators.size();
  segment.repeat = layers;
  RecomputePlan plan(keys);
  Planned result;
  for (const LayerRun& run : plan.runs_of(segment)) {
    for (std::int64_t r = 0; r < run.repeat; ++r) {
      for (const LayerPart& part : run.parts) {
        const std::size_t together = part.block->operators.size() / operators;
        result.chunks.push_back(together);
        for (std::size_t i = 0; i < together; ++i) {
          result.recomputed.push_back(part.recompute == Recompute::everything);
        }
      }
    }
  }
  return result;
}

TEST(RecomputePlan, EveryThirdOfSeven) {
  const Planned plan = planned({RecomputeMode::full, 3, {}, {}}, 7);
  EXPECT_EQ(plan.recomputed, (std::vector<bool>{false, false, true, false, false, true, false}));
}
TEST(RecomputePlan, TheFirstTwoOfFive) {
  const Planned plan = planned({RecomputeMode::full, {}, 2, RecomputeMethod::block}, 5);
  EXPECT_EQ(plan.recomputed, (std::vector<bool>{true, true, false, false, false}));
}
TEST(RecomputePlan, ChunksOfTwoLeaveOneOfFive) {
  const Planned plan = planned({RecomputeMode::full, {}, 2, RecomputeMethod::uniform}, 5);
  EXPECT_EQ(plan.chunks, (std::vector<std::size_t>{2, 2, 1}));
}

// Runs written out are the rule, layer by layer.
TEST(RecomputePlan, AnyNumberOfLayers) {
  std::mt19937 random(7);
  for (int i = 0; i < 200; ++i) {
    const auto layers = static_cast<std::int64_t>(random() % 40 + 1);
    const auto n = static_cast<std::int64_t>(random() % 9 + 1);
    const Planned every = planned({RecomputeMode::full, n, {}, {}}, layers);
    const Planned block = planned({RecomputeMode::full, {}, n, RecomputeMethod::block}, layers);
    ASSERT_EQ(every.recomputed.size(), static_cast<std::size_t>(layers));
    ASSERT_EQ(block.recomputed.size(), static_cast<std::size_t>(layers));
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      const auto at = static_cast<std::size_t>(layer);
      EXPECT_EQ(every.recomputed[at], (layer + 1) % n == 0);
      EXPECT_EQ(block.recomputed[at], layer < n);
    }
  }
}

// --- What is kept, by hand -------------------------------------------------------------------

// small_llama, one sample: T 64 tokens, H 64, I 160, 4 heads; bf16.
constexpr std::int64_t kWide = 160, kHeads = 4, kHidden = 64, kVocabulary = 500;

struct OneBlock {
  Program program;
  BlockTrace trace;
  [[nodiscard]] Bytes saved() const {
    Bytes sum;
    for (const SavedStorage& storage : trace.saved) {
      if (!storage.external) sum += storage.bytes;
    }
    return sum;
  }
  // The largest tensor that forward allocates.
  [[nodiscard]] Bytes largest() const {
    Bytes most;
    for (const Event& event : trace.forward) {
      if (event.kind != EventKind::allocate) continue;
      most = std::max(most, program.slots[static_cast<std::size_t>(event.index)].bytes);
    }
    return most;
  }
};

OneBlock traced(const std::function<void(BlockOptions&)>& set, bool head = false) {
  const auto graph = model::build(small_llama(), {1, kTokens});
  EXPECT_TRUE(graph);
  BlockOptions options;
  options.tape.arithmetic.compute = DType::bf16;
  options.weight_dtype = DType::bf16;
  set(options);
  SharedTensors shared;
  for (const model::TensorInfo& info : graph->shared) {
    Tensor tensor;
    tensor.storage = std::make_shared<Storage>();
    tensor.storage->external = true;
    tensor.numel = model::elements(info.shape);
    tensor.dtype = DType::bf16;
    tensor.storage->bytes = bytes_of(tensor);
    shared.tensors.push_back(tensor);
  }
  shared.mask = shared.tensors.back();
  OneBlock one;
  const model::Segment& segment = head ? graph->segments.back() : graph->segments[1];
  one.trace = trace_block(one.program, *graph, segment.blocks[0], options, shared, false, head);
  return one;
}

// silu(gate) is not kept: T x I x 2.
TEST(Kernels, SwigluKeepsItsTwoArguments) {
  const OneBlock plain = traced([](BlockOptions&) {});
  const OneBlock fused = traced([](BlockOptions& o) { o.variants.fused_swiglu = true; });
  EXPECT_EQ(plain.saved() - fused.saved(), Bytes(kTokens * kWide * 2));
}

// LlamaRMSNorm keeps its input in fp32 and the normalised one in bf16, 6 T H; the kernel its input
// alone, 2 T H; both a figure per row. The first norm's input is the block's, which is there anyway
// and was not kept before; the second's is the sum behind attention.
TEST(Kernels, RmsNormKeepsItsInput) {
  const OneBlock plain = traced([](BlockOptions&) {});
  const OneBlock fused = traced([](BlockOptions& o) { o.variants.rms_norm = RmsNorm::in_place; });
  EXPECT_EQ(plain.saved() - fused.saved(), Bytes(2 * (6 - 2) * kTokens * kHidden));
}

// Eager attention keeps the scores behind softmax in fp32 and their cast to bf16, 6 bytes each;
// under a checkpoint of its own neither.
TEST(SelectiveRecompute, DropsTheScores) {
  const auto math = [](BlockOptions& o) { o.variants.attention = AttentionKernel::math; };
  const OneBlock plain = traced(math);
  const OneBlock selective = traced([&](BlockOptions& o) {
    math(o);
    o.recompute = Recompute::core_attention;
  });
  // The repeated keys and values (2 heads become 4) are made inside and kept no more; those before
  // are kept in their place, half as large: 2 x T x 2 heads x 16 x 2 bytes less.
  const std::int64_t scores = 6 * kHeads * kTokens * kTokens;
  const std::int64_t repeated = 2 * kTokens * 2 * 16 * 2;
  EXPECT_EQ(plain.saved() - selective.saved(), Bytes(scores + repeated));
}

// Liger's loss: chunks of next_power_of_2(64 / ceil(500 / 64)) = 8 rows, of 8 x 500 logits. What is
// kept are the gradients of hidden states and weight.
TEST(FusedLoss, NeverHoldsTheLogits) {
  const OneBlock whole = traced([](BlockOptions&) {}, true);
  const OneBlock fused = traced([](BlockOptions& o) { o.variants.head = HeadLoss::fused; }, true);
  EXPECT_EQ(whole.largest(), Bytes(kTokens * kVocabulary * 4));
  EXPECT_EQ(fused.largest(), Bytes(kVocabulary * kHidden * 2));  // the weight's gradient
}

// torchtune's loss works on an eighth of the rows at a time: neither 64 x 500 logits in bf16 nor in
// fp32; the largest tensor is the norm's fp32 copy of the hidden states, 64 x 64 x 4.
TEST(ChunkedLoss, WorksOnAnEighthAtATime) {
  const OneBlock chunked =
      traced([](BlockOptions& o) { o.variants.head = HeadLoss::chunked; }, true);
  EXPECT_EQ(chunked.largest(), Bytes(kTokens * kHidden * 4));
}

// All that the block saved and that is no parameter, of another block's or below 1024 bytes.
TEST(OffloadedActivations, AreWhatWasSaved) {
  const OneBlock plain = traced([](BlockOptions&) {});
  const OneBlock offloaded = traced([](BlockOptions& o) { o.tape.offloads_saved = true; });
  Bytes large;
  for (const SavedStorage& storage : plain.trace.saved) {
    if (!storage.external && storage.bytes >= Bytes(1024)) large += storage.bytes;
  }
  EXPECT_GE(offloaded.trace.offloaded, large);
  EXPECT_EQ(plain.trace.offloaded, Bytes());
}

// Eight chunks bring eight gradients of the head's weight. The first is a view (F.linear multiplies
// with weight.t()), so that its sum with the second is a tensor of its own; the others are added in
// place. 500 x 64 x 2 bytes.
TEST(ChunkedLoss, SumsTheWeightsGradientsIntoOneMore) {
  const OneBlock chunked =
      traced([](BlockOptions& o) { o.variants.head = HeadLoss::chunked; }, true);
  std::int64_t alive = 0;
  std::int64_t most = 0;
  std::int64_t made = 0;
  const auto is_gradient = [&](std::int32_t slot) {
    return chunked.program.slots[static_cast<std::size_t>(slot)].bytes ==
           Bytes(kVocabulary * kHidden * 2);
  };
  for (const Event& event : chunked.trace.backward) {
    if (event.kind == EventKind::allocate && is_gradient(event.index)) {
      ++made;
      most = std::max(most, ++alive);
    }
    if (event.kind == EventKind::free && is_gradient(event.index)) --alive;
    // Handed over, or added and gone; the first stays.
    if (event.kind == EventKind::keep_gradient && made > 1) {
      const auto index = static_cast<std::size_t>(event.index);
      if (is_gradient(chunked.program.gradients[index].fresh)) --alive;
    }
  }
  EXPECT_EQ(made, 8 + 1);
  EXPECT_EQ(most, 3);
  EXPECT_EQ(alive, 1);
}

// How often each kept gradient is freed in a step, and in which body of backward the last time.
std::map<std::int32_t, std::vector<std::string>> freed_gradients(const Program& program) {
  std::set<std::int32_t> kept;
  for (const Gradient& gradient : program.gradients) kept.insert(gradient.kept);
  std::map<std::int32_t, std::vector<std::string>> freed;
  for (const Pass& pass : program.step) {
    for (const Phase& phase : pass.phases) {
      for (const Body& body : phase.bodies) {
        for (const Event& event : body.events) {
          if (event.kind != EventKind::free || !kept.contains(event.index)) continue;
          freed[event.index].emplace_back(body.layer);
        }
      }
    }
  }
  return freed;
}

// The hook waits for the sum of all chunks.
TEST(StepInBackward, StepsAWeightOnce) {
  Job job = small_job();
  job.train.optimizer.in_backward = true;
  job.train.loss = facts::Loss::chunked;
  const auto freed =
      freed_gradients(program_for(graph_of(small_llama()), job, profile_of("torchtune")));
  ASSERT_FALSE(freed.empty());
  for (const auto& [gradient, bodies] : freed) EXPECT_EQ(bodies.size(), 1U) << gradient;
}

// A head that shares the embedding's weight: complete when the embedding's backward is through.
TEST(StepInBackward, WaitsForBothUsesOfATiedWeight) {
  Job job = small_job();
  job.train.optimizer.in_backward = true;
  job.train.precision = facts::Precision::fp32;
  const model::Graph graph = graph_of(small_gpt2());
  const Program program = program_for(graph, job, profile_of("pytorch"));
  const std::string& embedding = graph.segments.front().blocks.front().name;
  std::int64_t shared = 0;
  for (const auto& [gradient, bodies] : freed_gradients(program)) {
    EXPECT_EQ(bodies.size(), 1U);
    const Bytes bytes = program.slots[static_cast<std::size_t>(gradient)].bytes;
    if (bytes != Bytes(kVocabulary * kHidden * 4)) continue;
    ++shared;
    EXPECT_EQ(bodies.front(), embedding);
  }
  EXPECT_EQ(shared, 1);
}

TEST(StepInBackward, RefusesSeveralMicroBatches) {
  Job job = small_job();
  job.train.optimizer.in_backward = true;
  job.train.gradient_accumulation = 2;
  const auto programs = programs_of(graph_of(small_llama()), job, profile_of("pytorch"));
  ASSERT_FALSE(programs);
  EXPECT_EQ(programs.error().subject, "train.optimizer.in_backward");
}

}  // namespace
}  // namespace steelyard::step
