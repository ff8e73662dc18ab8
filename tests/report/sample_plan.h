// A plan with realistic figures, put together by hand: what the report prints of it is checked by
// output. Llama-3.1-8B, FSDP over eight H100, full recomputation.
#pragma once

#include "base/quantity.h"
#include "facts/plan.h"

namespace steelyard::testing {

inline Bytes gib(double amount) {
  return Bytes(checked_round(amount * 1073741824.0));
}

inline void set_job(facts::Plan& plan) {
  facts::Job& job = plan.job;
  job.name = "llama-3.1-8b, full fine-tune";
  job.framework = "pytorch";
  job.train.micro_batch = 1;
  job.train.global_batch = 32;
  job.train.sequence_length = 8192;
  job.train.recompute.mode = facts::RecomputeMode::full;
  job.parallel.sharding = facts::Sharding::fsdp;
  job.parallel.data = 8;
  job.parallel.shard_group = 8;
  job.machine.gpus = 8;
  plan.model.name = "llama-3.1-8b";
  plan.model.parameters = Parameters(8'030'261'248);
  plan.model.trainable_parameters = plan.model.parameters;
}

inline void set_machine(facts::Plan& plan) {
  plan.machine.id = "dgx-h100";
  plan.machine.name = "NVIDIA DGX H100";
  plan.machine.kind = "appliance";
  plan.machine.gpus = 8;
  plan.machine.gpu.id = "h100-sxm-80gb";
  plan.machine.gpu.name = "H100 SXM 80GB";
  plan.vram.capacity = {gib(79.6), facts::Provenance::catalogue, "driver total"};
  plan.ram.capacity = {gib(2048), facts::Provenance::catalogue, ""};
}

inline void set_vram(facts::Plan& plan) {
  using facts::VramCategory;
  facts::RankMemory& rank = plan.vram.fullest;
  rank.kind = "data-parallel rank";
  rank.ranks = 8;
  rank.peak_allocated = gib(32.5);
  rank.peak_reserved = gib(34.0);
  rank.peak_device_used = gib(36.0);
  rank.by_category[VramCategory::parameters] = gib(5.7);
  rank.by_category[VramCategory::gradients] = gib(3.7);
  rank.by_category[VramCategory::optimizer] = gib(7.5);
  rank.by_category[VramCategory::activations] = gib(9.9);
  rank.by_category[VramCategory::temporaries] = gib(3.8);
  rank.by_category[VramCategory::communication] = gib(1.9);
  rank.by_category[VramCategory::batch] = Bytes(131'072);
  rank.by_category[VramCategory::allocator] = gib(1.5);
  rank.by_category[VramCategory::runtime] = gib(2.0);
  rank.peak_at = {"backward", "lm_head", "log_softmax_backward"};
  plan.vram.ranks = {rank};
  plan.fits_vram = true;
}

inline void set_ram(facts::Plan& plan) {
  using facts::RamCategory;
  using facts::RamPhase;
  const auto phase = [&](RamPhase which) -> facts::RamBytes& {
    return plan.ram.phases[static_cast<std::size_t>(which)];
  };
  for (facts::RamBytes& bytes : plan.ram.phases) {
    bytes[RamCategory::system] = gib(4);
    bytes[RamCategory::framework] = gib(26);
  }
  phase(RamPhase::load)[RamCategory::model_load] = gib(120);
  phase(RamPhase::steady)[RamCategory::loader_workers] = gib(12.5);
  phase(RamPhase::steady)[RamCategory::pinned] = gib(0.4);
  phase(RamPhase::checkpoint) = phase(RamPhase::steady);
  phase(RamPhase::checkpoint)[RamCategory::checkpoint_staging] = gib(89.7);
  plan.ram.peak = phase(RamPhase::load).total();
  plan.ram.peak_phase = RamPhase::load;
  plan.ram.page_cache_wanted = gib(120);
  plan.fits_ram = true;
}

inline void set_pace(facts::Plan& plan) {
  facts::PacePlan& pace = plan.pace;
  pace.breakdown.compute = Seconds(3.02);
  pace.breakdown.memory_bound = Seconds(0.71);
  pace.breakdown.exposed_communication = Seconds(0.22);
  pace.breakdown.optimizer = Seconds(0.05);
  pace.step = pace.breakdown.total();
  pace.tokens = TokensPerSecond(65'536);
  pace.tokens_per_gpu = TokensPerSecond(8'192);
  pace.samples = SamplesPerSecond(8);
  pace.mfu = Ratio(0.447);
  pace.hfu = Ratio(0.593);
  plan.feed.stages = {
      {"storage", SamplesPerSecond(520'000), SamplesPerSecond(8), Bytes(0), ""},
      {"read", SamplesPerSecond(210'000), SamplesPerSecond(8), Bytes(0), ""},
      {"assemble", SamplesPerSecond(8'400), SamplesPerSecond(8), Bytes(0), ""},
      {"host-to-device", SamplesPerSecond(91'000), SamplesPerSecond(8), Bytes(0), ""}};
  plan.feed.gpu_wait_fraction = Ratio(0.0);
  plan.feed.accelerator_utilization = Ratio(1.0);
}

inline void set_balance(facts::Plan& plan) {
  facts::BalancePlan& balance = plan.balance;
  balance.ratio_needed = Ratio(0.52);
  balance.ratio_installed = Ratio(3.2);
  balance.tier = facts::Tier::mid;
  balance.rule_low = Ratio(3.0);
  balance.rule_high = Ratio(4.0);
  balance.verdicts = {facts::BalanceVerdict::vram_idle, facts::BalanceVerdict::ram_idle};
  balance.sentences = {"43.6 GiB of every GPU stay empty: a larger micro-batch would use them.",
                       "The job needs 150 GiB of the 2.0 TiB of host memory."};
  plan.vram_confidence = {Ratio(0.034), Ratio(0.081), 12, ""};
  plan.pace_confidence = {Ratio(0.11), Ratio(0.24), 5, ""};
}

inline facts::Plan sample_plan() {
  facts::Plan plan;
  set_job(plan);
  set_machine(plan);
  set_vram(plan);
  set_ram(plan);
  set_pace(plan);
  set_balance(plan);
  return plan;
}

// The same job without recomputation and with a larger micro-batch: too large for the card.
inline facts::Plan sample_plan_that_does_not_fit() {
  using facts::VramCategory;
  facts::Plan plan = sample_plan();
  plan.job.train.micro_batch = 4;
  plan.job.train.recompute.mode = facts::RecomputeMode::none;
  facts::RankMemory& rank = plan.vram.fullest;
  rank.by_category[VramCategory::activations] = gib(128.4);
  rank.peak_device_used = rank.by_category.total();
  rank.peak_allocated = rank.peak_device_used - gib(3.5);
  rank.peak_reserved = rank.peak_device_used - gib(2.0);
  plan.fits_vram = false;
  plan.balance.verdicts = {facts::BalanceVerdict::vram_short, facts::BalanceVerdict::ram_idle};
  plan.balance.sentences = {"Activations are what fills the card."};
  plan.balance.ratio_needed = Ratio(0.12);
  plan.balance.advice = {
      {"recompute every layer in the backward pass: 51.3 GiB instead of 154.5 GiB per GPU, step "
       "5.42 s instead of 4 s",
       {{"train.recompute", "full"}},
       true,
       gib(51.3),
       gib(150),
       Seconds(5.42),
       {}},
      {"halve the micro-batch and accumulate twice as often: 90.2 GiB instead of 154.5 GiB",
       {{"train.micro_batch", "2"}, {"train.gradient_accumulation", "2"}},
       false,
       gib(90.2),
       gib(150),
       Seconds(4.21),
       {}}};
  plan.warnings = {"Dropout of the configuration (0.1) is taken as active."};
  return plan;
}

}  // namespace steelyard::testing
