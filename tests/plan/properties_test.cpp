// What holds for every job, over random ones with a fixed seed.
#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <random>
#include <string>

#include "base/format.h"
#include "plan/random_jobs.h"

namespace steelyard::plan {
namespace {

using facts::Job;
using facts::OptimizerName;
using facts::Precision;
using facts::Sharding;
using namespace literals;

constexpr int kJobs = 40;  // of each property: 280 together, all different

// Calls `check(job, plan)` for each random job.
template <class Check>
void for_random_jobs(std::uint64_t seed, Check check) {
  RandomJobs jobs(seed);
  for (int i = 0; i < kJobs; ++i) {
    const Job job = jobs.next();
    SCOPED_TRACE(words(job));
    check(job, planned(job));
  }
}

bool is_zero(const Job& job) {
  const Sharding sharding = job.parallel.sharding;
  return sharding == Sharding::zero1 || sharding == Sharding::zero2 || sharding == Sharding::zero3;
}

Bytes peak(const facts::Plan& plan) {
  return plan.vram.fullest.peak_allocated;
}

void expect_no_more(const facts::Plan& smaller, const facts::Plan& larger, Bytes slack = {}) {
  EXPECT_LE(peak(smaller), peak(larger) + slack)
      << to_text(peak(smaller)) << " instead of " << to_text(peak(larger));
}

TEST(Properties, CategoriesSumToTheTotal) {
  for_random_jobs(1, [](const Job&, const facts::Plan& plan) {
    const facts::RankMemory& memory = plan.vram.fullest;
    EXPECT_EQ(memory.by_category.total(), memory.peak_device_used);
    EXPECT_GE(memory.peak_reserved, memory.peak_allocated);
    EXPECT_GE(memory.peak_device_used, memory.peak_reserved);
    EXPECT_LE(memory.steady_allocated, memory.peak_allocated);
    for (const Bytes part : memory.by_category.bytes) EXPECT_GE(part, 0_B);
    Bytes fullest;
    for (const facts::RamBytes& phase : plan.ram.phases) {
      fullest = std::max(fullest, phase.total());
    }
    EXPECT_EQ(plan.ram.peak, fullest);
    if (plan.pace.step) {
      EXPECT_NEAR(plan.pace.breakdown.total().value(), plan.pace.step->value(),
                  1e-9 * plan.pace.step->value());
    }
  });
}

TEST(Properties, ALongerSequenceNeverNeedsLess) {
  for_random_jobs(2, [](const Job& job, const facts::Plan& plan) {
    Job longer = job;
    longer.train.sequence_length = *job.train.sequence_length * 2;
    expect_no_more(plan, planned(longer));
  });
}

TEST(Properties, ALargerMicroBatchNeverNeedsLess) {
  for_random_jobs(3, [](const Job& job, const facts::Plan& plan) {
    Job larger = job;
    larger.train.micro_batch = *job.train.micro_batch + 1;
    expect_no_more(plan, planned(larger));
  });
}

// A layer that runs again holds its input beside what it then keeps; without recomputation nobody
// may hold that input. So a moment inside the first layer may be fuller by one input: [B,S,H].
// Two blocks may lie at the end of a segment, each with a rest of less than 1 MiB that counts.
TEST(Properties, RecomputingNeverNeedsMoreThanALayersInput) {
  for_random_jobs(4, [](const Job& job, const facts::Plan&) {
    const facts::Value& config = std::get<facts::Value>(job.model.config);
    const facts::Value* hidden = config.find("hidden_size");
    if (hidden == nullptr) hidden = config.find("n_embd");
    const Bytes input(4 * *hidden->as_whole() * *job.train.micro_batch *
                      *job.train.sequence_length);
    Job kept = job;
    kept.train.recompute.mode = facts::RecomputeMode::none;
    Job again = job;
    again.train.recompute.mode = facts::RecomputeMode::full;
    expect_no_more(planned(again), planned(kept), input + 2_MiB);
  });
}

// Not with ZeRO, which adds an fp32 master copy to bf16 parameters: on one GPU that is more than
// fp32. Not with the model's own attention code: its softmax is in fp32, and the short copy that
// the next product reads is kept beside it.
TEST(Properties, Fp32NeverNeedsLessThanBf16) {
  for_random_jobs(5, [](const Job& job, const facts::Plan&) {
    Job wide = job;
    wide.train.attention = facts::Attention::flash;
    Job narrow = wide;
    wide.train.precision = Precision::fp32;
    narrow.train.precision = Precision::bf16;
    if (is_zero(job)) wide.parallel.sharding = narrow.parallel.sharding = Sharding::fsdp;
    expect_no_more(planned(narrow), planned(wide));
  });
}

TEST(Properties, MoreShardsNeverNeedMore) {
  for_random_jobs(6, [](const Job& job, const facts::Plan&) {
    if (job.parallel.sharding == Sharding::none) return;
    Job few = job;
    few.machine.gpus = 2;
    Job many = job;
    many.machine.gpus = 8;
    expect_no_more(planned(many), planned(few));
  });
}

// In fp32, where ZeRO's types are those of everybody else. ZeRO-3 and FSDP gather parameters:
// DeepSpeed up to a billion of them at a time, FSDP the root unit (embedding and head) for the
// whole pass. So they save where layers are most of the model, and more than that: the models that
// one shards.
TEST(Properties, ShardingTheOptimizerNeverNeedsMore) {
  for_random_jobs(7, [](const Job& job, const facts::Plan&) {
    const auto with = [&](Sharding sharding) {
      Job changed = job;
      changed.machine.gpus = std::max<std::int64_t>(2, *job.machine.gpus);
      changed.train.precision = Precision::fp32;
      changed.parallel.sharding = sharding;
      return planned(changed);
    };
    expect_no_more(with(Sharding::zero1), with(Sharding::none));
  });
}

// ZeRO-2 makes its partition of the gradients whole when the first bucket is reduced, where
// ZeRO-1's gradients grow layer by layer; ZeRO-3 keeps up to a billion gathered parameters, FSDP
// the root unit (embedding and head). So they save where states outweigh one sample's activations:
// the models that one shards, not tiny ones.
TEST(Properties, ShardingMoreOfALargeModelNeverNeedsMore) {
  for (const char* model : {"llama-2-7b", "llama-3.1-8b", "mistral-7b-v0.1", "gpt-neox-20b"}) {
    for (const Precision precision : {Precision::fp32, Precision::bf16_mixed}) {
      SCOPED_TRACE(std::string(model) + " " + std::string(facts::name_of(precision)));
      const auto with = [&](Sharding sharding) {
        Job job = job_on("dgx-h100", 8);
        job.model.config = std::string(model);
        job.train.precision = precision;
        job.train.micro_batch = 1;
        job.train.sequence_length = 512;
        job.parallel.sharding = sharding;
        return planned(job);
      };
      const facts::Plan none = with(Sharding::none);
      const facts::Plan zero1 = with(Sharding::zero1);
      const facts::Plan zero2 = with(Sharding::zero2);
      expect_no_more(zero1, none);
      expect_no_more(zero2, zero1);
      expect_no_more(with(Sharding::zero3), zero2);
      const facts::Plan kept = with(Sharding::shard_grad_op);
      expect_no_more(kept, none);
      expect_no_more(with(Sharding::fsdp), kept);
    }
  }
}

}  // namespace
}  // namespace steelyard::plan
