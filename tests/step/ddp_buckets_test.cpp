// DDP's buckets by hand, and as what a rank allocates.
#include "step/ddp_buckets.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

using facts::DType;
using namespace literals;

// Hidden 64, feed-forward 160, 500 tokens, three layers; fp32, so 256 B a norm. Backwards: the head
// (128,000 B) and the last norm; of a layer the second norm, down, up, gate (40,960 B each), the
// first norm, o (16,384), v, k (8,192 each), q (16,384).
TEST(DdpBuckets, byHand) {
  const model::Graph graph = graph_of(small_llama());
  std::vector<std::string> names;
  const Bytes layer = 2 * 256_B + 3 * 40960_B + 2 * 16384_B + 2 * 8192_B;
  const std::vector<Bytes> one = ddp_buckets(graph, DType::fp32, 25_MiB);
  ASSERT_EQ(one.size(), 1u);  // smaller than the first bucket
  EXPECT_EQ(one.front(), 2 * 128000_B + 256_B + 3 * layer);
  // A cap below 1 MiB holds for the first one too.
  const std::vector<Bytes> many = ddp_buckets(graph, DType::fp32, 128000_B);
  EXPECT_GE(many.size(), 5u);
  EXPECT_EQ(std::accumulate(many.begin(), many.end(), Bytes()), one.front());
  for (std::size_t i = 0; i + 1 < many.size(); ++i) EXPECT_GE(many[i], 128000_B);
  // bf16: half of everything.
  EXPECT_EQ(ddp_buckets(graph, DType::bf16, 25_MiB).front() * 2, one.front());
}

TEST(DdpBuckets, theFirstIsFullAtAMebibyte) {
  facts::ModelSource source = small_llama();
  source.config.set("vocab_size", 5000);  // head and embedding 1,280,000 B each in fp32
  const std::vector<Bytes> buckets = ddp_buckets(graph_of(source), DType::fp32, 25_MiB);
  ASSERT_EQ(buckets.size(), 2u);
  EXPECT_LT(buckets.front(), 25_MiB);
  EXPECT_GE(buckets.front(), 1_MiB);
}

TEST(DdpBuckets, areAllocatedOneByOneBeforeTheFirstStep) {
  const auto sizes = [](bool views) {
    facts::FrameworkProfile profile = profile_of("pytorch");
    profile.ddp_gradient_as_bucket_view = views;
    profile.ddp_bucket = 100000_B;
    facts::Job job = small_job(4);
    job.train.precision = facts::Precision::fp32;
    const Program program = program_for(graph_of(small_llama()), job, profile);
    std::vector<Bytes> found;
    play(program, program.setup, [&](const Event& event, std::int64_t) {
      if (event.kind != EventKind::allocate) return;
      const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
      if (program.names[static_cast<std::size_t>(slot.name)] == "DDP bucket") {
        found.push_back(slot.bytes);
      }
    });
    return found;
  };
  EXPECT_EQ(sizes(false), ddp_buckets(graph_of(small_llama()), DType::fp32, 100000_B));
  EXPECT_TRUE(sizes(true).empty());
}

}  // namespace
}  // namespace steelyard::step
