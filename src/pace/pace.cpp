#include "pace/pace.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pace/collectives.h"
#include "pace/figures.h"
#include "pace/roofline.h"
#include "pace/walk.h"

namespace steelyard::pace {
namespace {

using facts::EfficiencyConstants;
using facts::PacePlan;
using step::EventKind;
using step::Program;

constexpr std::string_view kConvolutions = "convolution";  // of EfficiencyConstants::kernels

Error our_bug(std::string subject, std::string found, std::string accepted) {
  Error error;
  error.code = ErrorCode::internal;
  error.subject = std::move(subject);
  error.found = std::move(found);
  error.accepted = std::move(accepted);
  return error;
}

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
      {"gemm_unaligned", constants.gemm_unaligned},
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

// Of the GPU's architecture, with the attention kernel that the job asks for.
EfficiencyConstants constants_for(const Request& request) {
  EfficiencyConstants constants = request.efficiency->on(request.machine->gpu.architecture);
  if (request.job->train.attention == facts::Attention::cudnn) {
    constants.attention_forward = constants.cudnn_attention_forward;
    constants.attention_backward = constants.cudnn_attention_backward;
  }
  const auto own = constants.attention_of.find(facts::name_of(request.job->framework));
  if (own != constants.attention_of.end()) {
    constants.attention_forward =
        Ratio(constants.attention_forward.value() * own->second.forward.value());
    constants.attention_backward =
        Ratio(constants.attention_backward.value() * own->second.backward.value());
  }
  return constants;
}

struct Used {  // by index: whether the step (not the set-up) has such an event
  std::vector<bool> work, communication;
};

Result<void> mark(std::vector<bool>& used, std::int32_t index, const char* what) {
  if (index < 0 || static_cast<std::size_t>(index) >= used.size()) {
    return fail(our_bug(std::string("program: event of ") + what, std::to_string(index),
                        "an index below " + std::to_string(used.size())));
  }
  used[static_cast<std::size_t>(index)] = true;
  return {};
}

Result<Used> used_by_step(const Program& program) {
  Used used{std::vector<bool>(program.work.size()),
            std::vector<bool>(program.communication.size())};
  for (const step::Pass& pass : program.step) {
    for (const step::Phase& phase : pass.phases) {
      for (const step::Body& body : phase.bodies) {
        for (const step::Event& event : body.events) {
          if (event.kind == EventKind::work) {
            STEELYARD_CHECK(mark(used.work, event.index, "work"));
          } else if (event.kind == EventKind::communicate) {
            STEELYARD_CHECK(mark(used.communication, event.index, "communication"));
          }
        }
      }
    }
  }
  return used;
}

// By the program's names ("model.layers: layer_norm"): what the operation says of its kernels.
std::vector<Nature> natures_of(const Program& program, const Request& request,
                               const EfficiencyConstants& constants) {
  const bool channels_first = request.job->train.memory_format == facts::MemoryFormat::contiguous;
  std::map<std::string_view, Nature> by_operation;
  for (const auto& [name, group] : constants.kernels) {
    const Nature nature{.traffic = group.traffic,
                        .copies_channels = channels_first && name == kConvolutions};
    for (const std::string& operation : group.operations) by_operation[operation] = nature;
  }
  std::vector<Nature> natures;
  for (const std::string& name : program.names) {
    const std::size_t colon = name.rfind(": ");
    const std::string_view operation =
        std::string_view(name).substr(colon == std::string::npos ? 0 : colon + 2);
    const auto known = by_operation.find(operation);
    natures.push_back(known == by_operation.end() ? Nature{} : known->second);
  }
  return natures;
}

Nature nature_of(const step::Work& work, const std::vector<Nature>& natures) {
  const auto name = static_cast<std::size_t>(work.name);
  return name < natures.size() ? natures[name] : Nature{};
}

Prices price(const Program& program, const Used& used, const Request& request,
             const EfficiencyConstants& constants, Missing& missing) {
  const facts::Machine& machine = *request.machine;
  const std::int64_t gpus = request.job->machine.gpus.value_or(machine.gpus);
  const BytesPerSecond host_memory =
      request.host_memory * (1.0 / static_cast<double>(std::max<std::int64_t>(gpus, 1)));
  Prices prices;
  prices.kernel_launch = constants.kernel_launch;
  prices.kernel_launch_forward = constants.kernel_launch_forward;
  prices.overlap_slowdown = constants.overlap_slowdown;
  prices.work.resize(program.work.size());
  const std::vector<Nature> natures = natures_of(program, request, constants);
  prices.communication.resize(program.communication.size());
  for (std::size_t i = 0; i < program.work.size(); ++i) {
    if (!used.work[i]) continue;
    if (on_the_host(program.work[i].kind)) {
      const auto seconds =
          host_time_of(program.work[i], machine.gpu, constants, host_memory, missing);
      prices.work[i].seconds = seconds.value_or(Seconds());
      continue;
    }
    prices.work[i] = time_of(program.work[i], machine.gpu, constants, missing,
                             nature_of(program.work[i], natures))
                         .value_or(WorkTime());
  }
  for (std::size_t i = 0; i < program.communication.size(); ++i) {
    if (!used.communication[i]) continue;
    prices.communication[i] =
        time_of(program.communication[i], machine, constants, missing).value_or(Seconds());
  }
  return prices;
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

// Jitter, stragglers and logging stretch the whole step, whatever it is doing.
facts::PaceBreakdown lengthened(facts::PaceBreakdown parts, Ratio overhead) {
  const double times = 1.0 + overhead.value();
  for (Seconds* part : {&parts.compute, &parts.memory_bound, &parts.optimizer,
                        &parts.exposed_communication, &parts.bubble, &parts.offload}) {
    *part = *part * times;
  }
  return parts;
}

void note_assumptions(PacePlan& plan, const Request& request, const Used& used,
                      const Walked& walked) {
  auto say = [&](std::string sentence) { plan.assumptions.push_back(std::move(sentence)); };
  say("Kernels run one after the other, each at its roofline with the calibrated share of the "
      "peak.");
  if (communicates(*request.program, used)) {
    say("Collectives are rings at the calibrated share of the link.");
    Missing none;
    const auto link = link_inside_node(request.machine->gpu, none);
    if (link && link->through_host) {
      say("No GPU link is known: GPUs of a node exchange data over the host link.");
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
  if (walked.host_bound > Seconds()) {
    say("The host launches kernels slower than the GPU executes them in part of the step.");
  }
}

std::int64_t gpus_of(const Request& request) {
  const facts::MachineKeys& keys = request.job->machine;
  return checked_multiply(keys.nodes, keys.gpus.value_or(request.machine->gpus));
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
  plan.breakdown = lengthened(walked.breakdown, constants.step_overhead);
  const Seconds step = plan.breakdown.total();
  if (!(step > Seconds())) return fail(our_bug("program: step", "no work", "at least one kernel"));
  plan.step = step;
  fill_rates(plan, request, walked.recomputed);
  note_assumptions(plan, request, used, walked);
  return plan;
}

}  // namespace steelyard::pace
