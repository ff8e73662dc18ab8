#include "plan/balance.h"

#include <fmt/format.h>

#include <string>

#include "base/format.h"

namespace steelyard::plan {

namespace {

using facts::BalancePlan;
using facts::BalanceVerdict;
using facts::Plan;
using facts::RamCategory;
using facts::Tier;
using facts::VramCategory;
using namespace literals;

// The mission's tiers (docs/model/balance.md): entry is what a card of 16 GB holds, mid what cards
// of 32 to 48 GB hold, large what asks for more, and any model of 10 billion parameters.
constexpr Parameters kLargeModel(10'000'000'000);
constexpr Bytes kEntryCard = 16_GiB;
constexpr Bytes kMidCard = 48_GiB;
// What each accelerator reads in the least demanding of MLPerf Storage's training workloads,
// ResNet-50 on A100 (docs/rehearse.md).
constexpr BytesPerSecond kDataHeavy(105e6);

struct Rule {
  double low, high;
  bool open_ended;
};
// RAM per VRAM, the rule of thumb of each tier.
constexpr Rule kRules[] = {{2.0, 3.0, false}, {3.0, 4.0, false}, {4.0, 5.0, true}};

// Memory that is paid for and idle: less than this share is used at the fullest moment.
constexpr double kIdleVramShare = 0.5;
constexpr double kIdleRamShare = 0.25;
// GPUs that wait longer than this share of the time are starved.
constexpr double kStarvedWait = 0.02;

// Wherever the states are held or sharded to, so that neither machine nor layout moves a job from
// one tier into another.
Bytes whole_job(const Plan& plan, const step::StateSizes& states) {
  const facts::VramBytes& gpu = plan.vram.fullest.by_category;
  Bytes whole = states.parameter_bytes + states.gradient_bytes + states.optimizer_bytes;
  for (const VramCategory passes :
       {VramCategory::activations, VramCategory::temporaries, VramCategory::batch,
        VramCategory::allocator, VramCategory::runtime}) {
    whole += gpu[passes];
  }
  return whole;
}

Tier tier_of(Parameters parameters, Bytes whole) {
  if (parameters >= kLargeModel || whole > kMidCard) return Tier::large;
  return whole > kEntryCard ? Tier::mid : Tier::entry;
}

// Of one GPU: what loads its samples, what waits for it, and what caches could hold of them.
Bytes memory_of_data(const Plan& plan) {
  const auto steady = static_cast<std::size_t>(facts::RamPhase::steady);
  Bytes held = plan.ram.page_cache_wanted;
  for (const RamCategory category :
       {RamCategory::loader_workers, RamCategory::prefetch, RamCategory::pinned,
        RamCategory::dataset_cache, RamCategory::embedding_tables}) {
    held += plan.ram.phases[steady][category];
  }
  return ceil_divide(held, plan.job.machine.gpus.value_or(1));
}

bool is_data_heavy(const Plan& plan, Bytes whole) {
  if (memory_of_data(plan) > whole) return true;
  const auto& stored = plan.job.data.bytes_per_sample;
  for (const facts::FeedStage& stage : plan.feed.stages) {
    if (stage.name != "storage" || !stage.needed || !stored) continue;
    const double gpus = static_cast<double>(plan.job.machine.gpus.value_or(1));
    return BytesPerSecond(stage.needed->value() * *stored / gpus) >= kDataHeavy;
  }
  return false;
}

void say(BalancePlan& balance, BalanceVerdict verdict, std::string sentence) {
  balance.verdicts.push_back(verdict);
  balance.sentences.push_back(std::move(sentence));
}

void judge_vram(const Plan& plan, BalancePlan& balance) {
  if (!plan.vram.capacity) return;
  const Bytes used = plan.vram.fullest.peak_device_used;
  const Bytes capacity = *plan.vram.capacity;
  if (used > capacity) {
    say(balance, BalanceVerdict::vram_short,
        fmt::format("each GPU lacks {}: {} needed, {} there", to_text(used - capacity),
                    to_text(used), to_text(capacity)));
  } else if ((used / capacity).value() < kIdleVramShare) {
    say(balance, BalanceVerdict::vram_idle,
        fmt::format("{} of each GPU's {} stay empty", to_text(capacity - used), to_text(capacity)));
  }
}

void judge_ram(const Plan& plan, BalancePlan& balance) {
  if (!plan.ram.capacity) return;
  const Bytes capacity = *plan.ram.capacity;
  const Bytes useful = plan.ram.peak + plan.ram.page_cache_wanted;
  if (plan.ram.peak > capacity) {
    say(balance, BalanceVerdict::ram_short,
        fmt::format("each host lacks {} in the {} phase: {} needed, {} there",
                    to_text(plan.ram.peak - capacity), name_of(plan.ram.peak_phase),
                    to_text(plan.ram.peak), to_text(capacity)));
  } else if (const facts::NodeLoad* node = plan.short_node()) {
    say(balance, BalanceVerdict::ram_short,
        fmt::format("NUMA node {} of each host lacks {} in the {} phase: its ranks need {}, {} "
                    "there, and may use no other node's",
                    node->node, to_text(node->need - *node->memory), name_of(node->need_phase),
                    to_text(node->need), to_text(*node->memory)));
  } else if ((useful / capacity).value() < kIdleRamShare) {
    say(balance, BalanceVerdict::ram_idle,
        fmt::format("of each host's {} only {} are used, page cache included", to_text(capacity),
                    to_text(useful)));
  }
}

BalanceVerdict starved_by(std::string_view stage) {
  if (stage == "decode" || stage == "assemble") return BalanceVerdict::starved_by_cpu;
  if (stage == "host-to-device") return BalanceVerdict::starved_by_link;
  return BalanceVerdict::starved_by_storage;
}

// "JPEG decoding": what the GPUs wait for.
std::string awaited(const Plan& plan, std::string_view stage) {
  const auto kind = plan.job.data.kind.value_or(facts::DataKind::tabular);
  if (stage == "storage") return plan.job.data.location.value_or("nvme") + " storage";
  if (stage == "read") return "reading";
  if (stage == "assemble") return "batches to be put together";
  if (stage != "decode") return "the copy to the GPU";
  if (kind == facts::DataKind::jpeg) return "JPEG decoding";
  if (kind == facts::DataKind::png) return "PNG decoding";
  if (kind == facts::DataKind::video) return "video decoding";
  return kind == facts::DataKind::text ? "tokenising" : "decoding";
}

std::string things(const Plan& plan) {
  const auto kind = plan.job.data.kind.value_or(facts::DataKind::tabular);
  const bool image = kind == facts::DataKind::jpeg || kind == facts::DataKind::png;
  if (image) return "images/s";
  return kind == facts::DataKind::video ? "clips/s" : "samples/s";
}

// "8 workers per GPU give", "it gives".
std::string giver(const Plan& plan, std::string_view stage) {
  const std::int64_t workers = plan.job.data.workers.value_or(0);
  if ((stage != "decode" && stage != "read") || workers == 0) return "it gives";
  return fmt::format("{} worker{} per GPU {}", workers, workers == 1 ? "" : "s",
                     workers == 1 ? "gives" : "give");
}

std::string rate_words(SamplesPerSecond rate) {
  constexpr double kFew = 100.0;
  return rate.value() < kFew ? fmt::format("{:.3g}", rate.value())
                             : grouped(checked_round(rate.value()));
}

// What waiting costs on a machine that has a price.
std::string paid_for(const Plan& plan, Ratio wait) {
  if (!plan.cost) return {};
  return fmt::format("; {:.2f} of {:.2f} {} per hour pay for waiting",
                     plan.cost->per_hour * wait.value(), plan.cost->per_hour, plan.cost->currency);
}

void judge_feed(const Plan& plan, BalancePlan& balance) {
  const auto& wait = plan.feed.gpu_wait_fraction;
  if (!wait || wait->value() <= kStarvedWait) return;
  for (const facts::FeedStage& stage : plan.feed.stages) {
    if (stage.name != plan.feed.limited_by || !stage.can || !stage.needed) continue;
    const SamplesPerSecond gives = plan.feed.supply ? *plan.feed.supply : *stage.can;
    say(balance, starved_by(stage.name),
        fmt::format("the GPUs will wait {} of the time for {}: {} {} {}, {} are needed",
                    percent(*wait), awaited(plan, stage.name), giver(plan, stage.name),
                    rate_words(gives), things(plan), rate_words(*stage.needed)) +
            paid_for(plan, *wait));
    return;
  }
}

}  // namespace

BalancePlan balance_of(const Plan& plan, const step::StateSizes& states) {
  BalancePlan balance;
  const std::int64_t gpus = plan.job.machine.gpus.value_or(1);
  // Over what the cards have, as the rule of thumb and what is installed: all on one scale.
  if (plan.vram.capacity) balance.ratio_needed = plan.ram.peak / (*plan.vram.capacity * gpus);
  if (plan.vram.capacity && plan.ram.capacity) {
    // All cards of the machine: the ratio is what was bought, not what this job uses.
    const std::int64_t installed = plan.machine.kind == "bare-gpu" ? gpus : plan.machine.gpus;
    balance.ratio_installed = *plan.ram.capacity / (*plan.vram.capacity * installed);
  }
  balance.whole_job = whole_job(plan, states);
  balance.tier = tier_of(plan.model.parameters, balance.whole_job);
  balance.data_heavy = is_data_heavy(plan, balance.whole_job);
  const Rule& rule = kRules[static_cast<std::size_t>(balance.tier)];
  balance.rule_low = Ratio(rule.low);
  balance.rule_high = Ratio(rule.high);
  balance.rule_open_ended = rule.open_ended || balance.data_heavy;
  judge_vram(plan, balance);
  judge_ram(plan, balance);
  judge_feed(plan, balance);
  if (balance.verdicts.empty() && plan.vram.capacity && plan.ram.capacity) {
    say(balance, BalanceVerdict::balanced, "both memories are used and neither is short");
  }
  return balance;
}

}  // namespace steelyard::plan
