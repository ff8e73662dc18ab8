#include "plan/checkpoints.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "facts/host.h"

namespace steelyard::plan {

namespace {

using facts::CheckpointMethod;

bool is_sharded(CheckpointMethod method) {
  return method == CheckpointMethod::sharded_sync || method == CheckpointMethod::sharded_async;
}

bool is_async(CheckpointMethod method) {
  return method == CheckpointMethod::async || method == CheckpointMethod::sharded_async;
}

const facts::Storage* storage_of(const facts::Plan& plan) {
  const std::string name = plan.job.data.location.value_or("");
  const auto found = std::ranges::find_if(plan.machine.storage,
                                          [&](const auto& each) { return each.name == name; });
  return found == plan.machine.storage.end() ? nullptr : &*found;
}

std::int64_t steps_between(const facts::Plan& plan) {
  return plan.job.checkpoint.every_steps.value_or(0);
}

bool is_stated(const facts::Plan& plan, const char* key) {
  const auto origin = plan.job.origins.find(key);
  return origin != plan.job.origins.end() && (origin->second.origin == facts::Origin::job ||
                                              origin->second.origin == facts::Origin::import);
}

}  // namespace

std::optional<SavingTime> saving_time(const facts::Plan& plan, std::string& missing) {
  const CheckpointMethod method = plan.job.checkpoint.method;
  const facts::Storage* storage = storage_of(plan);
  if (storage == nullptr || !(storage->write || storage->shared_write)) {
    missing = "how fast the storage writes";
    return std::nullopt;
  }
  const std::int64_t nodes = plan.job.machine.nodes;
  const std::int64_t ranks = plan.job.machine.gpus.value_or(1);
  const Bytes whole = plan.ram.checkpoint_bytes;
  const Bytes of_node = is_sharded(method) ? ceil_divide(whole, nodes) : whole;
  const Bytes of_rank = is_sharded(method) ? ceil_divide(of_node, ranks) : whole;
  Seconds copied;
  if (!facts::computes_on_host(plan.machine.gpu)) {
    if (!plan.machine.gpu.host_link) {
      missing = "how fast a GPU's link to the host is";
      return std::nullopt;
    }
    copied = of_rank / *plan.machine.gpu.host_link;
  }
  // A share takes what all nodes write together no faster than it can.
  const std::int64_t writers = is_sharded(method) ? nodes : 1;
  Seconds written;
  if (storage->write) written = of_node / *storage->write;
  if (storage->shared_write) {
    written = std::max(written, of_node * writers / *storage->shared_write);
  }
  if (!is_async(method)) return SavingTime{copied + written, written};
  const Seconds between =
      plan.pace.step.value_or(Seconds(0)) * static_cast<double>(steps_between(plan));
  return SavingTime{copied + std::max(Seconds(0), written - between), written};
}

void stretch_step(facts::PacePlan& pace, Ratio share) {
  pace.step = *pace.step / share.value();
  const auto shrink = [share](auto& rate) {
    if (rate) rate = *rate * share.value();
  };
  shrink(pace.samples);
  shrink(pace.tokens);
  shrink(pace.tokens_per_gpu);
  shrink(pace.mfu);
  shrink(pace.hfu);
  shrink(pace.model_flops_per_gpu);
}

void add_checkpoints(facts::Plan& plan) {
  const std::int64_t steps = steps_between(plan);
  if (steps <= 0 || !plan.pace.step || plan.pace.step->value() <= 0.0) return;
  std::string missing;
  const auto saving = saving_time(plan, missing);
  const bool stated = is_stated(plan, "checkpoint.every_steps");
  if (!saving) {
    if (!stated) return;
    plan.warnings.push_back(
        fmt::format("the time of checkpoints is not in the step: {} is unknown", missing));
    return;
  }
  const std::string one = fmt::format("one of {} stands still for {} and is written in {}",
                                      to_text(plan.ram.checkpoint_bytes), to_text(saving->blocked),
                                      to_text(saving->written));
  if (!stated) {
    plan.pace.assumptions.push_back(
        fmt::format("checkpoints: not counted, checkpoint.every_steps is not stated; {}", one));
    return;
  }
  plan.pace.assumptions.push_back(fmt::format("checkpoints: every {} steps; {}", steps, one));
  const Seconds spread = saving->blocked / static_cast<double>(steps);
  const Seconds before = *plan.pace.step;
  stretch_step(plan.pace, before / (before + spread));
  plan.pace.breakdown.checkpoint = *plan.pace.step - before;
}

}  // namespace steelyard::plan
