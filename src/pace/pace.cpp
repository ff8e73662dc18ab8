#include "pace/pace.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pace/figures.h"
#include "pace/prices.h"
#include "pace/roofline.h"
#include "pace/stretch.h"
#include "pace/walk.h"

namespace steelyard::pace {
namespace {

using facts::EfficiencyConstants;
using facts::PacePlan;
using step::EventKind;
using step::Program;

Result<void> check(const EfficiencyConstants& constants) {
  const std::pair<const char*, Ratio> ratios[] = {
      {"gemm", constants.gemm},
      {"gemm_peak", constants.gemm_peak},
      {"gemm_tf32", constants.gemm_tf32},
      {"gemm_vector", constants.gemm_vector},
      {"attention_forward", constants.attention_forward},
      {"attention_backward", constants.attention_backward},
      {"cudnn_attention_forward", constants.cudnn_attention_forward},
      {"cudnn_attention_backward", constants.cudnn_attention_backward},
      {"memory", constants.memory},
      {"link", constants.link},
      {"network", constants.network},
      {"host_peer", constants.host_peer},
      {"gemm_unaligned_batched", constants.gemm_unaligned_batched},
  };
  for (const auto& [name, ratio] : ratios) {
    if (!(ratio > Ratio(0.0) && ratio <= Ratio(1.0))) {
      return fail(our_bug(std::string("calibration of pace: ") + name,
                          std::to_string(ratio.value()), "more than 0, at most 1"));
    }
  }
  if (constants.overlap_slowdown < Ratio(0.0)) {
    return fail(our_bug("calibration of pace: overlap_slowdown",
                        std::to_string(constants.overlap_slowdown.value()), "0 or more"));
  }
  return {};
}

bool spans_nodes(const Program& program, const Used& used) {
  for (std::size_t i = 0; i < program.communication.size(); ++i) {
    const step::Communication& c = program.communication[i];
    if (used.communication[i] && c.ranks > c.ranks_per_node) return true;
  }
  return false;
}

bool communicates(const Program& program, const Used& used) {
  for (std::size_t i = 0; i < program.communication.size(); ++i) {
    if (used.communication[i] && program.communication[i].ranks > 1) return true;
  }
  return false;
}

// Jitter, the slowest rank and logging stretch the whole step, whatever it is doing.
facts::PaceBreakdown lengthened(facts::PaceBreakdown parts, double times) {
  for (Seconds* part : {&parts.compute, &parts.memory_bound, &parts.optimizer,
                        &parts.exposed_communication, &parts.bubble, &parts.offload}) {
    *part = *part * times;
  }
  return parts;
}

void note_assumptions(PacePlan& plan, const Request& request, const Used& used,
                      const Walked& walked) {
  auto say = [&](std::string sentence) { plan.assumptions.push_back(std::move(sentence)); };
  const EfficiencyConstants& constants = *request.efficiency;
  const double slowest = constants.rank_spread.value() * largest_of(gpus_of(request));
  if (slowest > 0.0) {
    say(fmt::format("All wait for the slowest of {} GPUs: {:.1f} % of the step.", gpus_of(request),
                    100.0 * slowest));
  }
  say("Kernels run one after the other, each at its roofline with the calibrated share of the "
      "peak.");
  if (communicates(*request.program, used)) {
    say("Collectives are rings at the calibrated share of the link.");
    Missing none;
    const facts::Gpu& gpu = request.machine->gpu;
    const std::int64_t here = request.job->machine.gpus.value_or(request.machine->gpus);
    const auto link = link_inside_node(gpu, here, none);
    if (link && link->through_host) {
      say(link_inside_node(gpu, 1, none)->through_host
              ? "No GPU link is known: GPUs of a node exchange data over the host link."
              : fmt::format("GPU links join {} GPUs: groups of more exchange data over the host "
                            "link (machine.gpu_link_gb_per_s).",
                            gpu.link_gpus));
    }
    if (spans_nodes(*request.program, used)) {
      say("Every GPU has its own share of the network (one rail per GPU) and all rails are used.");
    }
  }
  if (walked.breakdown.offload > Seconds()) {
    say("Copies to and from the host run beside the layer they belong to; the host's step takes "
        "its "
        "share of the memory bandwidth, all ranks at once.");
  }
  for (const auto& [word, what] :
       {std::pair{"launches", "CUDA graphs"}, std::pair{"exchange_time", "Overlapped exchanges"}}) {
    const auto& job = *request.job;
    if (!job.megatron || !job.megatron->operators.contains(word)) continue;
    say(std::string(what) + " are counted in time alone; the memory that they hold is not.");
  }
  if (walked.host_bound > Seconds()) {
    say("The host launches kernels slower than the GPU executes them in part of the step.");
  }
}

// Samples, tokens and utilization from the seconds of a step.
void fill_rates(PacePlan& plan, const Request& request, Flops recomputed_per_gpu) {
  const Seconds step = *plan.step;
  const double gpus = static_cast<double>(gpus_of(request));
  const std::int64_t samples =
      request.samples_per_step > 0 ? request.samples_per_step : *request.job->train.global_batch;
  plan.samples = Samples(samples) / step;
  if (request.tokens_per_sample > 0) {
    plan.tokens =
        TokensPerSecond(plan.samples->value() * static_cast<double>(request.tokens_per_sample));
    plan.tokens_per_gpu = *plan.tokens / gpus;
  }
  const FlopsPerSecond useful(request.model_flops_per_sample.value() * plan.samples->value() /
                              gpus);
  plan.model_flops_per_gpu = useful;
  const auto peak = peak_rate(request.machine->gpu, request.job->train.precision);
  if (peak && peak->value() > 0.0) {
    plan.mfu = useful / *peak;
    plan.hfu = (useful + recomputed_per_gpu / step) / *peak;
  }
}

}  // namespace

Result<PacePlan> step_time(const Request& request) {
  const Program& program = *request.program;
  const EfficiencyConstants constants = constants_for(request);
  STEELYARD_CHECK(check(constants));
  if (!request.job->train.global_batch) {
    return fail(our_bug("train.global_batch", "nothing", "a resolved job"));
  }
  STEELYARD_TRY(used, used_by_step(program));

  PacePlan plan;
  Missing missing;
  const Prices prices = price(program, used, request, constants, missing);
  if (missing.any()) {
    plan.missing = missing.names();
    return plan;
  }
  const Walked walked = walk(program, prices);
  plan.breakdown =
      lengthened(walked.breakdown,
                 stretch_of(constants.step_overhead, constants.rank_spread, gpus_of(request)));
  const Seconds step = plan.breakdown.total();
  if (!(step > Seconds())) return fail(our_bug("program: step", "no work", "at least one kernel"));
  plan.step = step;
  fill_rates(plan, request, walked.recomputed);
  note_assumptions(plan, request, used, walked);
  return plan;
}

}  // namespace steelyard::pace
