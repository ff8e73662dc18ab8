// train.upcast_logits: whether the loss widens 16-bit logits, whatever the framework would do.
#include <gtest/gtest.h>

#include <optional>

#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

// Bytes alive when backward begins.
std::int64_t left_by_forward(std::optional<bool> upcast, std::string_view framework) {
  facts::Job job = small_job();
  job.train.precision = facts::Precision::bf16;
  job.train.upcast_logits = upcast;
  const Program program = program_for(graph_of(small_llama()), job, profile_of(framework));
  std::int64_t alive = 0;
  const auto each = [&](const Event& event, std::int64_t) {
    const std::int64_t bytes = program.slots[static_cast<std::size_t>(event.index)].bytes.value();
    if (event.kind == EventKind::allocate) alive += bytes;
    if (event.kind == EventKind::free) alive -= bytes;
  };
  for (const Pass& pass : program.step) {
    for (const Phase& phase : pass.phases) {
      if (phase.kind == PhaseKind::backward) return alive;
      play(program, {Pass{1, {phase}}}, each);
    }
  }
  return alive;
}

TEST(Logits, LeftShortSaveTwoBytesOfEachOverTheFrameworksOwn) {
  // log_softmax of [B*S, V] in bf16 instead of fp32; scalars of the loss are a few bytes.
  const std::int64_t logits = kSamples * kTokens * 500;
  for (const auto framework : {"pytorch", "torchtitan"}) {
    SCOPED_TRACE(framework);
    const std::int64_t own = left_by_forward({}, framework);
    EXPECT_EQ(left_by_forward(true, framework), own);
    EXPECT_NEAR(static_cast<double>(own - left_by_forward(false, framework)),
                static_cast<double>(2 * logits), 16.0);
  }
}

}  // namespace
}  // namespace steelyard::step
