// A plan with every list filled and some figures unknown.
#pragma once

#include "codec/machine_example.h"
#include "facts/plan.h"

namespace steelyard {

inline facts::RankMemory example_rank() {
  facts::RankMemory rank;
  rank.kind = "data-parallel rank";
  rank.ranks = 8;
  rank.peak_allocated = Bytes(60'000'000'001);
  rank.peak_reserved = Bytes(62'000'000'002);
  rank.peak_device_used = Bytes(63'000'000'003);
  rank.steady_allocated = Bytes(16'000'000'004);
  rank.by_category[facts::VramCategory::parameters] = Bytes(63'000'000'000);
  rank.by_category[facts::VramCategory::runtime] = Bytes(3);
  rank.peak_at = {"backward", "lm_head", "log_softmax_backward"};
  return rank;
}

inline facts::Plan example_plan() {
  facts::Plan plan;
  plan.job.name = "example";
  plan.job.model.config = std::string("llama-3.1-8b");
  plan.job.train.micro_batch = 2;
  plan.job.train.fp8 = facts::Fp8Keys{};
  plan.job.origins["train.micro_batch"] = {facts::Origin::import, 3};
  plan.machine = example_machine();
  plan.model.name = "llama-3.1-8b";
  plan.model.type = "llama";
  plan.model.parameters = Parameters(8'030'261'248);
  plan.model.forward_flops_per_sample = Flops(1.25e14);
  plan.vram.capacity = plan.machine.gpu.memory;
  plan.vram.fullest = example_rank();
  plan.vram.ranks = {example_rank(), example_rank()};
  plan.ram.capacity = plan.machine.host.memory;
  plan.ram.peak = Bytes(200'000'000'005);
  plan.ram.peak_phase = facts::RamPhase::load;
  plan.ram.phases[1][facts::RamCategory::model_load] = Bytes(200'000'000'005);
  plan.ram.rules = {{"a rule", facts::Provenance::derived, "its source"}};
  plan.pace.step = Seconds(0.1);
  plan.pace.samples = SamplesPerSecond(160.0);
  plan.pace.mfu = Ratio(0.4);
  plan.pace.breakdown.compute = Seconds(0.1);
  plan.feed.stages = {{"storage", SamplesPerSecond(1e5), SamplesPerSecond(160.0), Bytes(7), "nvme"},
                      {"decode", {}, SamplesPerSecond(160.0), Bytes(8), "unknown"}};
  plan.feed.limited_by = "decode";
  plan.balance.ratio_needed = Ratio(0.31);
  plan.balance.verdicts = {facts::BalanceVerdict::vram_short, facts::BalanceVerdict::ram_idle};
  plan.balance.sentences = {"too little", "too much"};
  facts::Advice advice;
  advice.sentence = "recompute";
  advice.set = {{"train.recompute", "full"}, {"train.micro_batch", "1"}};
  advice.step = Seconds(0.13);
  plan.balance.advice = {advice};
  plan.cost = facts::CostPlan{.per_hour = 98.32,
                              .currency = "USD",
                              .per_million_samples = 170.7,
                              .per_million_tokens = {},
                              .wasted_per_hour = 12.5};
  plan.vram_confidence = {Ratio(0.03), Ratio(0.07), 12, "near"};
  plan.fits_vram = false;
  plan.fits_ram = true;
  plan.warnings = {"look"};
  return plan;
}

}  // namespace steelyard
