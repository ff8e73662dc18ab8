#include "plan/balance.h"

#include <fmt/format.h>

#include <string>

#include "base/format.h"

namespace steelyard::plan {

namespace {

using facts::BalancePlan;
using facts::BalanceVerdict;
using facts::Plan;
using facts::Tier;
using namespace literals;

// The mission's tiers (docs/mission, M5): large models from 10 billion parameters or on 80 GB
// cards, mid on cards of about 32 GB, entry below.
constexpr Parameters kLargeModel(10'000'000'000);
constexpr Bytes kLargeCard = 60_GiB;
constexpr Bytes kMidCard = 28_GiB;

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

Tier tier_of(const Plan& plan) {
  const auto& capacity = plan.vram.capacity;
  if (plan.model.parameters >= kLargeModel) return Tier::large;
  if (capacity && *capacity >= kLargeCard) return Tier::large;
  if (capacity && *capacity >= kMidCard) return Tier::mid;
  return Tier::entry;
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

void judge_feed(const Plan& plan, BalancePlan& balance) {
  const auto& wait = plan.feed.gpu_wait_fraction;
  if (!wait || wait->value() <= kStarvedWait) return;
  for (const facts::FeedStage& stage : plan.feed.stages) {
    if (stage.name != plan.feed.limited_by || !stage.can || !stage.needed) continue;
    say(balance, starved_by(stage.name),
        fmt::format("the GPUs will wait {} of the time for {}: it gives {}, {} are needed",
                    percent(*wait), stage.name, to_text(*stage.can), to_text(*stage.needed)));
    return;
  }
}

}  // namespace

BalancePlan balance_of(const Plan& plan) {
  BalancePlan balance;
  const std::int64_t gpus = plan.job.machine.gpus.value_or(1);
  const Bytes vram_needed = plan.vram.fullest.peak_device_used * gpus;
  if (vram_needed > Bytes()) balance.ratio_needed = plan.ram.peak / vram_needed;
  if (plan.vram.capacity && plan.ram.capacity) {
    // All cards of the machine: the ratio is what was bought, not what this job uses.
    const std::int64_t installed = plan.machine.kind == "bare-gpu" ? gpus : plan.machine.gpus;
    balance.ratio_installed = *plan.ram.capacity / (*plan.vram.capacity * installed);
  }
  balance.tier = tier_of(plan);
  const Rule& rule = kRules[static_cast<std::size_t>(balance.tier)];
  balance.rule_low = Ratio(rule.low);
  balance.rule_high = Ratio(rule.high);
  balance.rule_open_ended = rule.open_ended;
  judge_vram(plan, balance);
  judge_ram(plan, balance);
  judge_feed(plan, balance);
  if (balance.verdicts.empty() && plan.vram.capacity && plan.ram.capacity) {
    say(balance, BalanceVerdict::balanced, "both memories are used and neither is short");
  }
  return balance;
}

}  // namespace steelyard::plan
