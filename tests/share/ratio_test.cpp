#include "share/ratio.h"

#include <gtest/gtest.h>

#include "share/simple_planner.h"

namespace steelyard::share {
namespace {

using facts::MachineForMix;

facts::Gpu card(const std::string& id, double memory) {
  facts::Gpu gpu = simple_machine().gpu;
  gpu.id = id;
  gpu.memory = {gib(memory), facts::Provenance::given};
  return gpu;
}

facts::Machine server(const std::string& id, const facts::Gpu& gpu, double ram) {
  facts::Machine machine = simple_machine();
  machine.id = id;
  machine.gpu = gpu;
  machine.host.memory = {gib(ram), facts::Provenance::given};
  return machine;
}

// The planner of these tests wants a whole machine; ratio gives it bare cards.
Result<facts::Plan> planner(const facts::Job& job, const facts::Machine& machine, Depth depth) {
  facts::Machine whole = simple_machine();
  whole.gpu = machine.gpu;
  whole.host.memory = machine.host.memory;
  if (job.name == "never") return fail({.code = ErrorCode::not_supported, .subject = "never"});
  return simple_plan(job, whole, depth);
}

MixMember member(const std::string& name, double weight, std::int64_t gpus, const Simple& simple) {
  facts::Job job = simple_job(name, simple);
  job.machine.gpus = gpus;
  return {.job = job, .weight = weight, .planner = planner};
}

// Per GPU: small (4 + 2 x 6) / 2 = 8 GiB, large (4 + 4 x 19) / 4 = 20 GiB with 30 GiB VRAM.
RatioQuestion question() {
  return {.mix = "two",
          .rule = facts::RuleOfThumb{Ratio(2.0), Ratio(3.0), false},
          .jobs = {member("small", 3.0, 2, {.vram_gib = 10.0, .ram_gib = "1 6 2 2"}),
                   member("large", 1.0, 4,
                          {.cache_gib = 40.0, .vram_gib = 30.0, .ram_gib = "1 19 2 2"})},
          .gpus = {card("big", 40.0), card("little", 16.0), card("tiny", 8.0)},
          .machines = {server("right", card("big", 40.0), 256.0),
                       server("poor", card("big", 40.0), 128.0),
                       server("rich", card("big", 40.0), 2048.0),
                       server("narrow", card("little", 16.0), 1024.0)}};
}

TEST(Ratio, TakesTheNeediestAndTheMeanOfThoseThatFit) {
  const facts::MixRatio answer = ratio(question());
  ASSERT_EQ(answer.gpus.size(), 3U);
  EXPECT_EQ(answer.gpus[0].gpu, "tiny");
  EXPECT_FALSE(answer.gpus[0].ram_most);
  const facts::GpuRatio& little = answer.gpus[1];
  EXPECT_DOUBLE_EQ(little.fitting, 0.75);
  EXPECT_EQ(*little.ram_most, gib(8.0));
  EXPECT_DOUBLE_EQ(little.ratio_most->value(), 0.5);
  const facts::GpuRatio& big = answer.gpus[2];
  EXPECT_DOUBLE_EQ(big.fitting, 1.0);
  EXPECT_EQ(*big.ram_most, gib(20.0));
  EXPECT_EQ(big.neediest, 1U);
  EXPECT_EQ(*big.ram_mean, gib(11.0));         // (3 x 8 + 20) / 4
  EXPECT_EQ(*big.with_page_cache, gib(30.0));  // 20 + 40 / 4
  EXPECT_DOUBLE_EQ(big.ratio_most->value(), 0.5);
}

// On 8 GPUs two copies of the large job: (4 + 2 x 76) / 8 = 19.5 GiB per GPU. 32 are there in
// "right", 16 in "poor"; with page cache 19.5 + 40 / 8 = 24.5 of the 256 GiB of "rich".
TEST(Ratio, JudgesMachinesFilledWithTheNeediestJob) {
  const facts::MixRatio answer = ratio(question());
  ASSERT_EQ(answer.machines.size(), 4U);
  EXPECT_EQ(answer.machines[0].machine, "right");
  EXPECT_EQ(answer.machines[0].verdict, MachineForMix::enough);
  EXPECT_EQ(*answer.machines[0].needed, gib(19.5));
  EXPECT_EQ(*answer.machines[0].with_page_cache, gib(24.5));
  EXPECT_EQ(answer.machines[1].machine, "rich");
  EXPECT_EQ(answer.machines[1].verdict, MachineForMix::over_bought);
  EXPECT_EQ(answer.machines[2].machine, "poor");
  EXPECT_EQ(answer.machines[2].verdict, MachineForMix::ram_short);
  EXPECT_EQ(answer.machines[2].why, "large lacks 3.5 GiB per GPU");
  EXPECT_EQ(answer.machines[3].machine, "narrow");
  EXPECT_EQ(answer.machines[3].verdict, MachineForMix::vram_short);
}

TEST(Ratio, AJobThatCannotBePlannedSaysWhy) {
  RatioQuestion asked = question();
  asked.jobs.push_back(member("never", 1.0, 1, {}));
  const facts::MixRatio answer = ratio(asked);
  EXPECT_EQ(answer.gpus[2].cells[2].refused, "never");
  EXPECT_DOUBLE_EQ(answer.gpus[2].fitting, 0.8);
  EXPECT_EQ(answer.machines[0].verdict, MachineForMix::vram_short);
  EXPECT_EQ(answer.machines[1].verdict, MachineForMix::refused);
}

}  // namespace
}  // namespace steelyard::share
