#include "plan/warnings.h"

#include <fmt/format.h>

#include <string>
#include <utility>

#include "facts/host.h"
#include "plan/idle_keys.h"
#include "plan/model_remarks.h"

namespace steelyard::plan {

using facts::Plan;

void warn(const Request& request, const model::Graph& graph, Plan& plan) {
  constexpr double kTight = 0.95;
  const facts::Gpu& gpu = plan.machine.gpu;
  const facts::TrainKeys& train = plan.job.train;
  const auto say = [&](std::string text) { plan.warnings.push_back(std::move(text)); };
  const facts::FrameworkProfile& profile = request.constants.framework;
  for (std::string& remark : model_remarks(request.model, graph, plan.job, profile)) {
    say(std::move(remark));
  }
  const bool wide =
      train.precision == facts::Precision::fp32 || train.precision == facts::Precision::tf32;
  const bool short_only =
      train.attention == facts::Attention::flash || train.attention == facts::Attention::cudnn;
  if (wide && short_only) {
    say(fmt::format("{} attention has no fp32 kernel: planned with PyTorch's memory-efficient one",
                    facts::name_of(train.attention)));
  }
  const bool bf16 =
      train.precision == facts::Precision::bf16 || train.precision == facts::Precision::bf16_mixed;
  if (bf16 && gpu.compute_capability && *gpu.compute_capability < 8.0) {
    say(fmt::format("{} has no bf16 units: set train.precision to fp16-mixed or fp32", gpu.name));
  }
  if (!wide && short_only && gpu.compute_capability && *gpu.compute_capability < 8.0) {
    say(
        fmt::format("flash attention needs an Ampere card or a later one, {} is older: set "
                    "train.attention to efficient or math",
                    gpu.name));
  }
  if (gpu.vendor != "nvidia" && !facts::computes_on_host(gpu)) {
    say(fmt::format("the memory rules are those of PyTorch on CUDA; on {} they are unchecked",
                    gpu.name));
  }
  const std::int64_t used = plan.job.machine.gpus.value_or(1);
  if (plan.cost && plan.machine.kind != "bare-gpu" && used < plan.machine.gpus) {
    const double idle = 1.0 - static_cast<double>(used) / static_cast<double>(plan.machine.gpus);
    say(fmt::format("{} of {} GPUs are used: {:.2f} of {:.2f} {} per hour pay for the others", used,
                    plan.machine.gpus, plan.cost->per_hour * idle, plan.cost->per_hour,
                    plan.cost->currency));
  }
  // A pool of most of the card is tight by design.
  const bool pool = request.constants.framework.allocator.kind == facts::AllocatorKind::bfc;
  if (!pool && plan.fits_vram.value_or(false) &&
      (plan.vram.fullest.peak_device_used / *plan.vram.capacity).value() > kTight) {
    say("less than 5 % of the GPU's memory stays free: within the error of this plan");
  }
  if (plan.fits_ram.value_or(false) && (plan.ram.peak / *plan.ram.capacity).value() > kTight) {
    say("less than 5 % of the host's memory stays free: within the error of this plan");
  }
  for (std::string& sentence : idle_keys(plan.job, graph)) say(std::move(sentence));
}

}  // namespace steelyard::plan
