// Loops around transformers' models that recompute and adapt in their own way (versions.automodel):
// what is alive when backward begins, by hand, in bytes of a small LLaMA in bf16.
#include <gtest/gtest.h>

#include <string_view>

#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

constexpr std::int64_t kHidden = 64;
constexpr std::int64_t kRows = kSamples * kTokens;
constexpr std::int64_t kStream = kRows * kHidden * 2;  // [B,S,H] in bf16

std::int64_t alive_before_backward(const facts::Job& job, const facts::Value& versions) {
  const Program program =
      program_for(graph_of(small_llama()), job, profile_of("pytorch", versions));
  std::int64_t alive = 0;
  const auto each = [&](const Event& event, std::int64_t) {
    const bool made = event.kind == EventKind::allocate;
    if (!made && event.kind != EventKind::free) return;
    const std::int64_t bytes = program.slots[static_cast<std::size_t>(event.index)].bytes.value();
    alive += made ? bytes : -bytes;
  };
  play(program, program.setup, each);
  for (const Pass& pass : program.step) {
    for (const Phase& phase : pass.phases) {
      if (phase.kind == PhaseKind::backward) return alive;
      play(program, {Pass{1, {phase}}}, each);
    }
  }
  return alive;
}

facts::Job bf16_job() {
  facts::Job job = small_job();
  job.train.precision = facts::Precision::bf16;
  return job;
}

// Input and result of each norm instead of the layer's input alone: the results are what attention
// and the feed-forward network run again from.
TEST(OwnLoops, ModulesCheckpointedOneByOneKeepFourTensorsOfALayer) {
  facts::Job job = bf16_job();
  job.train.recompute.mode = facts::RecomputeMode::full;
  const std::int64_t whole = alive_before_backward(job, {});
  const std::int64_t modules = alive_before_backward(job, facts::Object{{"automodel", "2025.12"}});
  EXPECT_EQ(modules - whole, 3 * kLayers * kStream);
  job.train.recompute.mode = facts::RecomputeMode::none;
  EXPECT_EQ(alive_before_backward(job, facts::Object{{"automodel", "2025.12"}}),
            alive_before_backward(job, {}));
}

// The input of q, k and v is kept once for their A, not dropped three times; masks are of 64, 32
// and 32 columns instead of three of 64, which the first layer has no gradient for and does not
// keep.
TEST(OwnLoops, DropoutOfAnAdaptersResultKeepsItsMaskAlone) {
  facts::Job job = bf16_job();
  job.train.method = facts::Method::lora;
  job.train.lora.rank = 4;
  job.train.lora.targets = {"q_proj", "k_proj", "v_proj"};
  job.train.lora.dropout = 0.1;
  const std::int64_t inputs = alive_before_backward(job, {});
  const std::int64_t results = alive_before_backward(job, facts::Object{{"automodel", "2025.12"}});
  EXPECT_EQ(inputs - results, kLayers * 2 * kStream + (kLayers - 1) * kRows * 3 * 64 -
                                  kLayers * kRows * (64 + 32 + 32));
}

// Read and written by the kernels of that name in the forward passes.
std::int64_t traffic_of(const facts::Job& job, const facts::Value& versions,
                        std::string_view operation) {
  const Program program =
      program_for(graph_of(small_llama()), job, profile_of("pytorch", versions));
  std::int64_t traffic = 0;
  for (const Pass& pass : program.step) {
    for (const Phase& phase : pass.phases) {
      if (phase.kind != PhaseKind::forward) continue;
      play(program, {Pass{1, {phase}}}, [&](const Event& event, std::int64_t) {
        if (event.kind != EventKind::work) return;
        const Work& work = program.work[static_cast<std::size_t>(event.index)];
        if (!program.names[static_cast<std::size_t>(work.name)].ends_with(operation)) return;
        traffic += work.traffic.value();
      });
    }
  }
  return traffic;
}

// lora_B(lora_A(x) * scale): the factor meets four columns of each adapter, not the 64, 32 and 32
// of what they add.
TEST(OwnLoops, AnAdaptersFactorMayMeetItsLowRank) {
  facts::Job job = bf16_job();
  job.train.method = facts::Method::lora;
  job.train.lora.rank = 4;
  job.train.lora.targets = {"q_proj", "k_proj", "v_proj"};
  const std::int64_t results = traffic_of(job, {}, "mul");
  const std::int64_t low = traffic_of(job, facts::Object{{"automodel", "2025.12"}}, "mul");
  EXPECT_EQ(results - low, kLayers * kRows * (64 + 32 + 32 - 3 * 4) * 2 * 2);
}

// train.use_reentrant in place of the profile's own checkpoints, either way.
TEST(OwnLoops, TheJobSaysWhoseCheckpointsRun) {
  facts::Job job = bf16_job();
  job.train.recompute.mode = facts::RecomputeMode::full;
  const model::Graph graph = graph_of(small_llama());
  const auto slots = [&](const char* word, std::optional<bool> reentrant) {
    facts::FrameworkProfile profile = profile_of("pytorch");
    profile.operators["checkpoint"] = word;
    job.train.use_reentrant = reentrant;
    std::vector<std::string> made;
    const Program program = program_for(graph, job, profile);
    for (const Slot& slot : program.slots) {
      made.push_back(program.names[static_cast<std::size_t>(slot.name)]);
    }
    return made;
  };
  EXPECT_NE(slots("reentrant", {}), slots("early_stop", {}));
  EXPECT_EQ(slots("reentrant", false), slots("early_stop", {}));
  EXPECT_EQ(slots("early_stop", true), slots("reentrant", {}));
  EXPECT_EQ(slots("whole", false), slots("whole", {}));
}

// DeepSpeed's overlap_comm: ipg_buffer of two, below stage 3.
TEST(OwnLoops, OverlappedReductionsHaveASecondBucket) {
  const auto bucket = [](facts::Sharding sharding, bool overlap) {
    facts::Job job = small_job(2);
    job.parallel.sharding = sharding;
    job.parallel.buckets.reduce = 1000;
    job.parallel.buckets.overlap = overlap;
    job.train.precision = facts::Precision::bf16_mixed;
    const Program program = program_for(graph_of(small_llama()), job, profile_of("deepspeed"));
    for (const Slot& slot : program.slots) {
      const std::string& name = program.names[static_cast<std::size_t>(slot.name)];
      if (name == "reduce bucket") return slot.bytes;
    }
    return Bytes();
  };
  EXPECT_EQ(bucket(facts::Sharding::zero2, false), Bytes(2000));
  EXPECT_EQ(bucket(facts::Sharding::zero2, true), Bytes(4000));
  EXPECT_EQ(bucket(facts::Sharding::zero3, true), bucket(facts::Sharding::zero3, false));
}

}  // namespace
}  // namespace steelyard::step
