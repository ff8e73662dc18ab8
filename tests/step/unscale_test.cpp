// Gradients of a scaled loss: the bytes that unscaling and the look for overflows move, by hand.
#include <gtest/gtest.h>

#include <string>

#include "step/player.h"
#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

using facts::Job;
using facts::Precision;
using facts::Sharding;

constexpr std::int64_t kRanks = 4;

struct Moved {
  double bytes = 0.0;
  std::int64_t times = 0;
};

Moved moved(const Program& program, const std::string& name) {
  Moved sum;
  for (const Pass& pass : program.step) {
    for_each_phase(pass, [&](const Phase& phase) {
      for (const Body& body : phase.bodies) {
        for (const Event& event : body.events) {
          if (event.kind != EventKind::work) continue;
          const Work& work = program.work[static_cast<std::size_t>(event.index)];
          if (!program.names[static_cast<std::size_t>(work.name)].ends_with(name)) continue;
          sum.bytes += work.traffic.real() * static_cast<double>(body.repeat);
          sum.times += body.repeat;
        }
      }
    });
  }
  return sum;
}

double parameters() {
  double sum = 0.0;
  const model::Graph graph = graph_of(small_llama());
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        sum += static_cast<double>(segment.repeat * model::elements(weight.shape));
      }
    }
  }
  return sum;
}

Job scaled(Precision precision, Sharding sharding = Sharding::none, std::int64_t ranks = 1) {
  Job job = small_job(ranks);
  job.train.precision = precision;
  job.train.optimizer.master_weights = precision == Precision::fp16;
  job.train.gradient_clipping = false;
  job.parallel.sharding = sharding;
  return job;
}

Program program_of(const Job& job, const char* framework, const facts::Value& versions = {}) {
  return program_for(graph_of(small_llama()), job, profile_of(framework, versions));
}

TEST(Unscaling, ReadsAndWritesGradientsOfAScaledLossOnce) {
  const Program mixed = program_of(scaled(Precision::fp16_mixed), "pytorch");
  EXPECT_DOUBLE_EQ(moved(mixed, "unscale").bytes, 8.0 * parameters());
  const Program bf16 = program_of(scaled(Precision::bf16_mixed), "pytorch");
  EXPECT_EQ(moved(bf16, "unscale").bytes, 0.0);
}

// apex's O2 and the like: gradients of 2 bytes become gradients of 4.
TEST(Unscaling, WidensWhatMastersAreSteppedWith) {
  const Program masters = program_of(scaled(Precision::fp16), "pytorch");
  EXPECT_DOUBLE_EQ(moved(masters, "unscale").bytes, 6.0 * parameters());
}

// 36 bytes for each element of the partition, 8 for the product, tensor by tensor of a quarter.
TEST(Unscaling, DeepSpeedLooksThroughItsPartition) {
  const Job job = scaled(Precision::fp16, Sharding::zero2, kRanks);
  const facts::Value now = facts::Object{{"torch", "2.6"}};
  const Program program = program_of(job, "deepspeed", now);
  const Moved checked = moved(program, "check_overflow");
  EXPECT_NEAR(checked.bytes / (36.0 * parameters() / kRanks), 1.0, 1e-2);
  EXPECT_NEAR(moved(program, "unscale").bytes / (8.0 * parameters() / kRanks), 1.0, 1e-2);
  // Nine tensors of a layer, the embedding, the last norm and the head: 30, of which 8 are its own.
  EXPECT_EQ(checked.times, 8);
}

TEST(Unscaling, DeepSpeedsHostReadSumsUntilTheHostReadOneFlag) {
  const Job job = scaled(Precision::fp16, Sharding::zero2, kRanks);
  const facts::Value then = facts::Object{{"torch", "2.1"}};
  const Program program = program_of(job, "deepspeed", then);
  EXPECT_EQ(moved(program, "check_overflow").times, 0);
  const Moved summed = moved(program, "sum_overflow");
  EXPECT_EQ(summed.times, 8);
  EXPECT_NEAR(summed.bytes / (10.0 * parameters() / kRanks), 1.0, 1e-2);
}

// Clipping is the same product, so it is not made twice; in bf16 nothing is looked for.
TEST(Unscaling, DeepSpeedMultipliesWhateverTheType) {
  Job job = scaled(Precision::bf16, Sharding::zero2, kRanks);
  job.train.optimizer.master_weights = true;
  const Program plain = program_of(job, "deepspeed");
  EXPECT_EQ(moved(plain, "check_overflow").times, 0);
  EXPECT_GT(moved(plain, "unscale").bytes, 0.0);
  job.train.gradient_clipping = true;
  const Program clipped = program_of(job, "deepspeed");
  EXPECT_EQ(moved(clipped, "unscale").bytes, 0.0);
}

}  // namespace
}  // namespace steelyard::step
