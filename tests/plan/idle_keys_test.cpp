// Keys that a person set and that change nothing are said, with the key that makes them idle; where
// they change something they are not.
#include "plan/idle_keys.h"

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "model/model.h"
#include "plan/planning.h"

namespace steelyard::plan {
namespace {

using facts::Job;

struct Idle {
  const char* key;
  std::function<void(Job&)> set;    // the key, where it is idle
  std::function<void(Job&)> awake;  // what makes it count
};

const std::vector<Idle>& all() {
  static const std::vector<Idle> kAll = {
      {"parallel.sequence_parallel", [](Job& j) { j.parallel.sequence_parallel = true; },
       [](Job& j) { j.parallel.tensor = 2; }},
      {"parallel.schedule", [](Job& j) { j.parallel.schedule = facts::Schedule::gpipe; },
       [](Job& j) { j.parallel.pipeline = 2; }},
      {"parallel.virtual_stages", [](Job& j) { j.parallel.virtual_stages = 2; },
       [](Job& j) { j.parallel.pipeline = 2; }},
      {"parallel.context_method",
       [](Job& j) { j.parallel.context_method = facts::ContextMethod::ring; },
       [](Job& j) { j.parallel.context = 2; }},
      {"parallel.reshard_after_forward", [](Job& j) { j.parallel.reshard_after_forward = false; },
       [](Job& j) { j.parallel.sharding = facts::Sharding::fsdp; }},
      {"parallel.shard_group", [](Job& j) { j.parallel.shard_group = 2; },
       [](Job& j) { j.parallel.sharding = facts::Sharding::fsdp; }},
      {"parallel.buckets.reduce", [](Job& j) { j.parallel.buckets.reduce = 1e8; },
       [](Job& j) { j.parallel.sharding = facts::Sharding::zero2; }},
      {"parallel.expert_imbalance", [](Job& j) { j.parallel.expert_imbalance = 1.5; },
       [](Job& j) { j.model.config = std::string("mixtral-8x7b"); }},
      {"offload.pin_memory", [](Job& j) { j.offload.pin_memory = false; },
       [](Job& j) { j.offload.optimizer = facts::OffloadTo::cpu; }},
      {"train.fp8.recipe", [](Job& j) { j.train.fp8 = facts::Fp8Keys(); },
       [](Job& j) { j.train.precision = facts::Precision::fp8_mixed; }},
      {"data.prefetch", [](Job& j) { j.data.workers = 0; }, [](Job& j) { j.data.workers = 2; }},
      {"machine.numa_memory", [](Job& j) { j.machine.numa_memory = facts::NumaMemory::strict; },
       [](Job& j) { j.machine.numa_binding = true; }},
  };
  return kAll;
}

std::vector<std::string> sentences(const Job& job) {
  return idle_keys(job, value_of(model::build(value_of(own_catalog().model_of(job, {})),
                                              model::SampleShape{1, 64})));
}

TEST(IdleKeys, areSaidWhereTheyChangeNothing) {
  for (const Idle& idle : all()) {
    SCOPED_TRACE(idle.key);
    Job job = job_on("dgx-h100", 8);
    job.model.config = std::string("gpt2");
    idle.set(job);
    EXPECT_TRUE(sentences(job).empty());  // nobody asked for it
    job.origins[idle.key] = {facts::Origin::import, {}};
    EXPECT_TRUE(sentences(job).empty());
    job.origins[idle.key] = {facts::Origin::job, 3};
    const std::vector<std::string> said = sentences(job);
    ASSERT_EQ(said.size(), 1u);
    EXPECT_TRUE(said.front().starts_with("the key " + std::string(idle.key) + " changes nothing: "))
        << said.front();
    idle.awake(job);
    EXPECT_TRUE(sentences(job).empty());
  }
}

TEST(IdleKeys, aCacheOfAModelThatDoesNotDecode) {
  Job job = job_on("dgx-h100", 8);
  job.model.config = std::string("bert-base-uncased");
  job.train.use_cache = true;
  job.origins["train.use_cache"] = {facts::Origin::job, 3};
  EXPECT_EQ(sentences(job).size(), 1u);
  job.model.config = std::string("gpt2");
  EXPECT_TRUE(sentences(job).empty());
}

TEST(IdleKeys, anAdapterKernelWithoutAdapters) {
  Job job = job_on("dgx-h100", 8);
  job.model.config = std::string("gpt2");
  job.train.fused_kernels = {facts::FusedKernel::lora};
  EXPECT_EQ(sentences(job).size(), 1u);
  job.train.method = facts::Method::lora;
  EXPECT_TRUE(sentences(job).empty());
}

}  // namespace
}  // namespace steelyard::plan
