// The tier of a job is what it is, whatever machine it stands on and however it is sharded.
#include <gtest/gtest.h>

#include <string>

#include "plan/planning.h"

namespace steelyard::plan {
namespace {

using facts::Job;
using facts::Sharding;
using facts::Tier;

Job gpt2_on(const char* gpu, std::int64_t gpus) {
  Job job = job_on_cards(gpu, gpus);
  job.model.config = std::string("gpt2");
  job.train.micro_batch = 2;
  job.train.sequence_length = 1024;
  return job;
}

Job llama_8b(std::int64_t gpus) {
  Job job = job_on_cards("h100-sxm-80gb", gpus);
  job.model.config = std::string("llama-3.1-8b");
  job.train.micro_batch = 1;
  job.train.sequence_length = 2048;
  return job;
}

TEST(Tier, DoesNotFollowTheCard) {
  for (const char* gpu : {"t4", "rtx-4090", "h100-sxm-80gb", "b200"}) {
    EXPECT_EQ(planned(gpt2_on(gpu, 1)).balance.tier, Tier::entry) << gpu;
  }
}

TEST(Tier, DoesNotFollowTheLayout) {
  for (const Sharding sharding :
       {Sharding::none, Sharding::zero1, Sharding::fsdp, Sharding::zero3}) {
    Job small = gpt2_on("h100-sxm-80gb", 8);
    small.parallel.sharding = sharding;
    EXPECT_EQ(planned(small).balance.tier, Tier::entry) << name_of(sharding);
    Job whole = llama_8b(8);
    whole.machine.nodes = 8;
    whole.parallel.sharding = sharding;
    EXPECT_EQ(planned(whole).balance.tier, Tier::large) << name_of(sharding);
  }
}

TEST(Tier, StatesOnTheHostCount) {
  Job job = llama_8b(1);
  job.framework = "deepspeed";
  job.parallel.sharding = Sharding::zero3;
  const facts::BalancePlan on_card = planned(job).balance;
  job.offload.optimizer = facts::OffloadTo::cpu;
  const facts::BalancePlan on_host = planned(job).balance;
  EXPECT_EQ(on_card.tier, Tier::large);
  EXPECT_EQ(on_host.tier, Tier::large);
}

TEST(Tier, AdaptersMakeASmallerJob) {
  Job job = llama_8b(1);
  job.train.method = facts::Method::lora;
  EXPECT_EQ(planned(job).balance.tier, Tier::mid);
}

TEST(Tier, TenBillionParametersAreLarge) {
  Job job = llama_8b(1);
  job.model.config = std::string("llama-2-13b");
  job.train.method = facts::Method::qlora;
  job.train.base_quantization = facts::BaseQuantization::nf4;
  const facts::BalancePlan balance = planned(job).balance;
  EXPECT_LT(balance.whole_job, Bytes(std::int64_t{48} << 30));
  EXPECT_EQ(balance.tier, Tier::large);
}

TEST(Tier, DataHeavyByWhatEachGpuReads) {
  Job job = job_on_cards("a100-sxm-80gb", 1);
  job.model.config = std::string("resnet-50");
  job.train.precision = facts::Precision::bf16_mixed;
  job.train.image_size = {224, 224};
  job.train.micro_batch = 256;
  job.data.kind = facts::DataKind::jpeg;
  job.data.samples = 1'281'167;
  job.data.bytes_per_sample = 110e3;  // of ImageNet
  const facts::BalancePlan pictures = planned(job).balance;
  EXPECT_TRUE(pictures.data_heavy);
  EXPECT_TRUE(pictures.rule_open_ended);
  job.data.bytes_per_sample = 5e3;
  EXPECT_FALSE(planned(job).balance.data_heavy);
}

}  // namespace
}  // namespace steelyard::plan
