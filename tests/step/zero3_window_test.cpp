// What ZeRO-3 holds gathered at each moment, against what DeepSpeed 0.19 itself gathered
// (oracle_zero3_window.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "step/player.h"
#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

// Llama-3.1-8B: layers of 218.1e6 elements, embedding and head of 525.3e6.
facts::ModelSource llama_8b(bool tied = false, std::int64_t vocabulary = 128256) {
  return {"llama",
          facts::Object{{"model_type", "llama"},
                        {"hidden_size", 4096},
                        {"num_attention_heads", 32},
                        {"num_key_value_heads", 8},
                        {"intermediate_size", 14336},
                        {"num_hidden_layers", 32},
                        {"vocab_size", vocabulary},
                        {"tie_word_embeddings", tied}},
          ""};
}

class Zero3Window : public ::testing::Test {
 protected:
  // Bytes of slots whose name begins with "gathered", the most of each phase.
  std::map<PhaseKind, std::int64_t> gathered(const facts::ModelSource& source) {
    facts::Job job = small_job(8);
    job.parallel.sharding = facts::Sharding::zero3;
    job.train.precision = facts::Precision::bf16;
    const Program program = program_for(graph_of(source), job, profile_of("deepspeed"));
    std::map<PhaseKind, std::int64_t> most;
    std::int64_t now = 0;
    for (const Pass& pass : program.step) {
      for (const Phase& phase : pass.phases) {
        most[phase.kind] = std::max(most[phase.kind], now);
        for (const Body& body : phase.bodies) {
          for (const Event& event : body.events) {
            if (event.kind != EventKind::allocate && event.kind != EventKind::free) continue;
            const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
            const std::string& name = program.names[static_cast<std::size_t>(slot.name)];
            if (!name.starts_with("gathered")) continue;
            EXPECT_EQ(slot.stream, Stream::all_gather);
            EXPECT_EQ(body.repeat, 1);
            now += event.kind == EventKind::allocate ? slot.bytes.value() : -slot.bytes.value();
            most[phase.kind] = std::max(most[phase.kind], now);
          }
        }
      }
    }
    EXPECT_EQ(now, 0);
    return most;
  }
};

constexpr double kElements = 2e9;  // bytes of 1e9 elements

TEST_F(Zero3Window, aHeadComesOnTopOfAFullWindow) {
  const auto most = gathered(llama_8b());
  EXPECT_NEAR(static_cast<double>(most.at(PhaseKind::forward)) / kElements, 1.525, 0.01);
  EXPECT_NEAR(static_cast<double>(most.at(PhaseKind::backward)) / kElements, 1.525, 0.03);
}

TEST_F(Zero3Window, aTiedHeadIsGatheredAgain) {
  const auto most = gathered(llama_8b(true, 250880));
  EXPECT_NEAR(static_cast<double>(most.at(PhaseKind::forward)) / kElements, 2.03, 0.01);
}

TEST_F(Zero3Window, aModelSmallerThanTheLimitStaysGathered) {
  const model::Graph graph = graph_of(small_llama());
  const auto most = gathered(small_llama());
  const std::int64_t all = 2 * model::parameter_count(graph).value();
  EXPECT_EQ(most.at(PhaseKind::forward), all);
  EXPECT_EQ(most.at(PhaseKind::backward), all);
}

// Most bytes of what products hold of gathered weights.
std::int64_t held_by_products(bool own_linear, facts::RecomputeMode recompute) {
  facts::Job job = small_job(8);
  job.parallel.memory_efficient_linear = own_linear;
  job.parallel.sharding = facts::Sharding::zero3;
  job.train.precision = facts::Precision::bf16;
  job.train.recompute.mode = recompute;
  const Program program = program_for(graph_of(llama_8b()), job, profile_of("deepspeed"));
  std::int64_t now = 0, most = 0;
  play(program, program.step, [&](const Event& event, std::int64_t) {
    if (event.kind != EventKind::allocate && event.kind != EventKind::free) return;
    const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
    if (program.names[static_cast<std::size_t>(slot.name)] != "weights held by products") return;
    now += (event.kind == EventKind::allocate ? 1 : -1) * slot.bytes.value();
    most = std::max(most, now);
  });
  EXPECT_EQ(now, 0);
  return most;
}

// Llama-3.1-8B: layers of 218'103'808 elements of products, a head of 525'336'576.
TEST(Zero3Products, plainLinearsHoldTheirGatheredWeightsUntilBackward) {
  EXPECT_EQ(held_by_products(true, facts::RecomputeMode::none), 0);
  EXPECT_EQ(held_by_products(false, facts::RecomputeMode::none),
            2 * (32 * 218'103'808LL + 525'336'576LL));
  // Recomputed layers begin to hold them one by one, in backward, when the head's are gone.
  EXPECT_EQ(held_by_products(false, facts::RecomputeMode::full), 2 * 525'336'576LL);
}

}  // namespace
}  // namespace steelyard::step
