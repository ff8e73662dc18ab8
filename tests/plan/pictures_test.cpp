// Plans of models that read pictures, of encoders and of mixtures of experts.
#include <gtest/gtest.h>

#include "plan/planning.h"

namespace steelyard::plan {
namespace {

using facts::Job;
using namespace literals;

Job job_of(const char* model, std::int64_t gpus = 1) {
  Job job = job_on("dgx-a100-80gb", gpus);
  job.model.config = std::string(model);
  job.train.micro_batch = 4;
  return job;
}

class Planned : public ::testing::TestWithParam<const char*> {};

TEST_P(Planned, BytesByCategorySumToThePeak) {
  for (const auto precision :
       {facts::Precision::fp32, facts::Precision::bf16_mixed, facts::Precision::bf16}) {
    for (const auto attention : {facts::Attention::flash, facts::Attention::math}) {
      Job job = job_of(GetParam());
      job.train.precision = precision;
      job.train.attention = attention;
      const facts::Plan plan = planned(job);
      const facts::RankMemory& memory = plan.vram.fullest;
      EXPECT_EQ(memory.by_category.total(), memory.peak_device_used);
      EXPECT_LE(memory.peak_allocated, memory.peak_reserved);
      for (const Bytes part : memory.by_category.bytes) EXPECT_GE(part, 0_B);
    }
  }
}

TEST_P(Planned, MoreSamplesNeedMore) {
  Job job = job_of(GetParam());
  const facts::Plan four = planned(job);
  job.train.micro_batch = 8;
  const facts::Plan eight = planned(job);
  EXPECT_GT(eight.vram.fullest.peak_allocated, four.vram.fullest.peak_allocated);
  EXPECT_EQ(eight.model.forward_flops_per_sample, four.model.forward_flops_per_sample);
}

INSTANTIATE_TEST_SUITE_P(Models, Planned,
                         ::testing::Values("bert-base-uncased", "roberta-base",
                                           "distilbert-base-uncased", "vit-base-patch16-224",
                                           "resnet-50", "torchvision/resnet50",
                                           "timm/vit_small_patch16_224", "stable-diffusion-v1-4"));

TEST(Pictures, SizeComesFromTheModelOrTheJob) {
  Job job = job_of("vit-base-patch16-384");
  EXPECT_EQ(planned(job).job.train.image_size, (std::vector<std::int64_t>{384, 384}));
  EXPECT_EQ(planned(job).job.origins.at("train.image_size").origin, facts::Origin::model);
  const Bytes large = planned(job).vram.fullest.peak_allocated;
  job.train.image_size = {224, 224};
  EXPECT_LT(planned(job).vram.fullest.peak_allocated, large);
  EXPECT_FALSE(planned(job).job.train.sequence_length.has_value());
}

TEST(Pictures, ATextModelHasNoPictureAndTheReverse) {
  Job text = job_of("gpt2");
  text.train.image_size = {224, 224};
  auto refused = plan(request_for(text));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().subject, "train.image_size");
  Job picture = job_of("resnet-50");
  picture.train.sequence_length = 128;
  refused = plan(request_for(picture));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().subject, "train.sequence_length");
}

TEST(Pictures, WhatIsNotSplitIsRefusedByItsKey) {
  Job job = job_of("torchvision/resnet50", 8);
  job.parallel.tensor = 2;
  auto refused = plan(request_for(job));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().subject, "parallel.tensor");
  job.parallel.tensor = 1;
  job.parallel.pipeline = 2;
  refused = plan(request_for(job));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().subject, "parallel.pipeline");
  Job unet = job_of("stable-diffusion-v1-4");
  unet.train.recompute.mode = facts::RecomputeMode::selective_op;
  refused = plan(request_for(unet));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().subject, "train.recompute");
}

// Of Mixtral's 46.7 B parameters 12.9 B work on a token: 46,702,792,704 less 6 of 8 experts of 32
// layers, 32 * 6 * 3 * 4096 * 14336.
TEST(Mixture, StatesTheActiveParameters) {
  const facts::Plan plan = planned(job_of("mixtral-8x7b"));
  EXPECT_EQ(plan.model.parameters, Parameters(46'702'792'704));
  EXPECT_EQ(plan.model.active_parameters,
            Parameters(46'702'792'704 - std::int64_t{32} * 6 * 3 * 4096 * 14336));
}

// peft 0.21, "all-linear": of each layer q, k, v, o, the router's gate and 8 experts' w1, w2, w3.
TEST(Mixture, AdaptersStandBesideEveryExpertsLinears) {
  Job job = job_of("mixtral-8x7b");
  job.train.method = facts::Method::lora;
  job.train.lora.rank = 8;
  job.train.lora.targets = {"all-linear"};
  const std::int64_t attention = 2 * (4096 + 4096) + 2 * (4096 + 1024);
  const std::int64_t experts = 8 * 3 * (4096 + 14336);
  EXPECT_EQ(planned(job).model.trainable_parameters,
            Parameters(std::int64_t{32} * 8 * (attention + experts + 4096 + 8)));
}

}  // namespace
}  // namespace steelyard::plan
