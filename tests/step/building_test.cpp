// What building a model on the GPU allocates, lets go of and leaves.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "step/player.h"
#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

struct Built {
  Bytes held, most;                                   // when all is there; at the fullest moment
  std::map<std::string, Bytes, std::less<>> largest;  // of each name
};

Built built(const facts::Job& job, const facts::Value& versions) {
  const Program program =
      program_for(graph_of(small_llama()), job, profile_of("torchtune", versions));
  Player player(program);
  player.play(program.setup);
  EXPECT_EQ(player.complaint(), "");
  Built all;
  play(program, program.setup, [&](const Event& event, std::int64_t) {
    const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
    const bool made = event.kind == EventKind::allocate;
    if (!made && event.kind != EventKind::free) return;
    all.held += made ? slot.bytes : Bytes() - slot.bytes;
    all.most = std::max(all.most, all.held);
    Bytes& largest = all.largest[program.names[static_cast<std::size_t>(slot.name)]];
    largest = std::max(largest, slot.bytes);
  });
  return all;
}

facts::Job small_qlora() {
  facts::Job job = small_job();
  job.train.method = facts::Method::qlora;
  job.train.base_quantization = facts::BaseQuantization::nf4_dq;
  job.train.precision = facts::Precision::bf16;
  job.train.lora.rank = 8;
  job.train.lora.targets = {"all-linear"};
  return job;
}

// Of small_llama: q, o 64 x 64; k, v 32 x 64; gate, up, down 160 x 64; two norms of 64.
constexpr std::int64_t kLayerElements = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 160 * 64 + 2 * 64;

TEST(Building, ALayerIsThereOnceMoreUntilItIsCopied) {
  facts::Job job = small_job();
  job.train.precision = facts::Precision::bf16;
  const Built now = built(job, {});
  const Built then = built(job, facts::Object{{"torchtune", "0.3"}});
  EXPECT_EQ(now.most, now.held);
  EXPECT_EQ(then.held, now.held);
  // All parameters and the layer, before the batch comes.
  const Bytes batch(2 * kSamples * kTokens * 8);
  EXPECT_EQ(then.most - then.held + batch, Bytes(2 * kLayerElements));
}

TEST(Building, ShardedModelsStartOnTheMetaDevice) {
  facts::Job job = small_job(2);
  job.parallel.sharding = facts::Sharding::fsdp;
  job.train.precision = facts::Precision::bf16;
  const Built now = built(job, {});
  const Built then = built(job, facts::Object{{"torchtune", "0.3"}});
  EXPECT_EQ(then.most, now.most);
}

TEST(Building, Torchao01ComparesAMatrixWithAllValuesAtOnce) {
  const facts::Job job = small_qlora();
  const Built chunks = built(job, facts::Object{{"torchtune", "0.2"}});
  const Built whole = built(job, facts::Object{{"torchtune", "0.1"}});
  EXPECT_EQ(whole.held, chunks.held);
  constexpr std::int64_t kLargest = 160 * 64;
  EXPECT_EQ(whole.largest.at("sub"), Bytes(2 * 16 * kLargest));
  EXPECT_FALSE(chunks.largest.contains("sub"));
  // Differences and absolutes, the matrix and what is scaled of it, beside most of the model.
  EXPECT_GT(whole.most - whole.held, Bytes((2 * 32 + 2 * 2) * kLargest) - chunks.held);
  EXPECT_GT(whole.most, Bytes((2 * 32 + 2 * 2) * kLargest));
}

}  // namespace
}  // namespace steelyard::step
