#include "plan/figures.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <utility>

#include "base/format.h"
#include "facts/host.h"
#include "feed/feed.h"
#include "model/model.h"
#include "pace/pace.h"
#include "plan/balance.h"
#include "plan/checkpoints.h"
#include "plan/confidence.h"
#include "plan/host_products.h"
#include "plan/host_step.h"
#include "plan/objective.h"
#include "plan/pace_request.h"
#include "plan/placement.h"
#include "plan/ranks.h"
#include "plan/resolve.h"
#include "plan/sample_bytes.h"
#include "plan/swap_drive.h"
#include "plan/warnings.h"
#include "ram/ram.h"
#include "step/frozen_parts.h"
#include "step/step.h"
#include "vram/vram.h"

namespace steelyard::plan {

namespace {

using facts::Plan;

// Backward multiplies twice as much as forward: once for the inputs' gradient, once for the
// weights'.
constexpr double kBackwardPerForward = 2.0;
constexpr double kMillion = 1e6;

void describe_model(const Request& request, const model::Graph& graph,
                    const step::StateSizes& states, Plan& plan) {
  const std::int64_t samples = graph.batch / rows_of_sample(plan.job);
  plan.model.name = request.model.name;
  plan.model.type = graph.model_type;
  plan.model.parameters = states.parameters - states.beside;
  plan.model.trainable_parameters = states.trainable - states.trains_beside;
  plan.model.active_parameters = model::active_parameter_count(graph);
  plan.model.forward_flops_per_sample = model::forward_flops(graph) / static_cast<double>(samples);
  Flops attention;
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      for (const model::Operator& op : block.operators) {
        if (op.kind != model::OperatorKind::attention) continue;
        attention += model::forward_flops(op, block, graph) * static_cast<double>(segment.repeat);
      }
    }
  }
  attention = attention / static_cast<double>(samples);
  plan.model.attention_forward_flops_per_sample = attention;
  plan.model.backward_flops_per_sample = plan.model.forward_flops_per_sample * kBackwardPerForward;
  // Frozen weights get no gradient: their inputs' gradients are all, and attention's two.
  if (request.job.train.method != facts::Method::full) {
    plan.model.backward_flops_per_sample = plan.model.forward_flops_per_sample + attention;
  } else if (!request.job.train.trainable.empty() || !request.job.train.frozen.empty()) {
    const auto trained = step::with_frozen_parts(graph, request.job);
    if (!trained) return;  // refused before
    plan.model.backward_flops_per_sample =
        step::backward_flops(*trained) / static_cast<double>(samples);
  }
}

using Programs = std::vector<step::RankProgram>;

// In their order, up to the first that does not fit.
std::vector<vram::Answer> replay_until_short(vram::Request wanted, const Programs& programs) {
  std::vector<vram::Answer> answers;
  for (const step::RankProgram& rank : programs) {
    wanted.program = &rank.program;
    answers.push_back(vram::replay(wanted));
    const Bytes peak = answers.back().memory.peak_device_used;
    if (wanted.capacity && peak > *wanted.capacity) break;
  }
  return answers;
}

void measure_vram(const Request& request, const Programs& programs, const Shortcuts& shortcuts,
                  Plan& plan) {
  const facts::DeviceMemoryConstants device = device_of(request, plan.job);
  vram::Request wanted;
  wanted.device = &device;
  wanted.timeline = request.timeline;
  wanted.habits = request.constants.framework.allocator;
  wanted.conf = plan.job.train.allocator;
  wanted.capacity = plan.machine.gpu.memory.value;
  plan.vram.capacity = plan.machine.gpu.memory;
  std::atomic<bool> stops = false;
  if (shortcuts.only_if_fits) wanted.stops = &stops;
  std::vector<vram::Answer> answers = shortcuts.until_short
                                          ? replay_until_short(wanted, programs)
                                          : vram::replay_all(wanted, programs_only(programs));
  for (std::size_t i = 0; i < answers.size(); ++i) {
    vram::Answer& answer = answers[i];
    answer.memory.kind = programs[i].kind;
    answer.memory.ranks = programs[i].ranks;
    if (plan.vram.ranks.empty() ||
        answer.memory.peak_device_used > plan.vram.fullest.peak_device_used) {
      plan.vram.fullest = answer.memory;
      plan.vram.timeline = answer.timeline;
    }
    if (request.timeline) plan.vram.timelines.push_back(std::move(answer.timeline));
    plan.vram.ranks.push_back(std::move(answer.memory));
  }
  const std::string& caveat = request.constants.framework.caveat;
  if (!caveat.empty()) plan.warnings.push_back(caveat);
  if (plan.vram.capacity) {
    plan.fits_vram = !stops && plan.vram.fullest.peak_device_used <= *plan.vram.capacity;
  } else if (!facts::computes_on_host(plan.machine.gpu)) {
    plan.warnings.push_back(
        fmt::format("the memory of {} is unknown: set machine.vram_gib to learn whether it fits",
                    plan.machine.gpu.id));
  }
}

// Of a whole step.
double arithmetic_of(const step::Program& program) {
  double sum = 0.0;
  for (const step::Pass& pass : program.step) {
    std::vector<std::vector<double>> bodies;  // of each phase, which may come more than once
    for (const step::Phase& phase : pass.phases) {
      bodies.emplace_back();
      for (const step::Body& body : phase.bodies) {
        double once = 0.0;
        for (const step::Event& event : body.events) {
          if (event.kind != step::EventKind::work) continue;
          const step::Work& work = program.work[static_cast<std::size_t>(event.index)];
          if (work.kind != step::WorkKind::host) once += work.flops.value();
        }
        bodies.back().push_back(once * static_cast<double>(body.repeat) *
                                static_cast<double>(pass.repeat));
      }
    }
    step::for_each_phase(pass, [&](const step::Phase& phase) {
      for (const double body : bodies[static_cast<std::size_t>(&phase - pass.phases.data())]) {
        sum += body;
      }
    });
  }
  return sum;
}

// The rank that the others wait for, the one with most arithmetic, and that of all over its own.
struct Busiest {
  const step::Program* program = nullptr;
  std::vector<double> shares;
};

Busiest busiest(const Programs& programs) {
  Busiest found;
  for (std::size_t i = 0; i < programs.size(); ++i) {
    const std::size_t like = programs[i].like;
    found.shares.push_back(like < i ? found.shares[like] : arithmetic_of(programs[i].program));
  }
  const auto most = std::max_element(found.shares.begin(), found.shares.end());
  found.program = &programs[static_cast<std::size_t>(most - found.shares.begin())].program;
  const double whole = *most;
  for (double& share : found.shares) share = whole > 0.0 ? share / whole : 1.0;
  return found;
}

Result<void> measure_ram(const Request& request, const step::Program& program, Bytes sample,
                         Plan& plan) {
  ram::Request wanted;
  wanted.job = &plan.job;
  wanted.machine = &plan.machine;
  wanted.states = &program.states;
  wanted.constants = &request.constants.host;
  wanted.sample_bytes = sample;
  wanted.offloaded_activations = program.offloaded_activations;
  wanted.paged_states = plan.vram.fullest.paged_out;
  wanted.words = &request.constants.framework.operators;
  if (facts::computes_on_host(plan.machine.gpu)) {
    wanted.tensors = plan.vram.fullest.by_category;
    plan.vram = {};
    plan.fits_vram = true;
  }
  STEELYARD_TRY(host, ram::host_memory(wanted));
  plan.ram = std::move(host);
  if (plan.ram.capacity) {
    plan.fits_ram = plan.ram.peak <= *plan.ram.capacity;
  } else {
    plan.warnings.push_back(
        "the host's memory is unknown: set machine.ram_gib to learn whether it fits");
  }
  return {};
}

std::int64_t tokens_counted(const facts::Job& job) {
  return static_cast<std::int64_t>(tokens_of_sample(job));
}

// Each sample is learned from once in every epoch; `beside`: of all that is computed around it.
Flops flops_of_sample(const Plan& plan, Flops beside) {
  const double epochs = static_cast<double>(plan.job.train.rollout.epochs.value_or(1));
  return (plan.model.forward_flops_per_sample + plan.model.backward_flops_per_sample) * epochs +
         beside;
}

// Of the busiest rank; the plan must outlive it.
pace::Request asked(const Request& request, const Busiest& most, Flops beside, const Plan& plan) {
  pace::Request wanted = pace_request(request, plan.job, plan.machine);
  wanted.program = most.program;
  wanted.stage_shares = most.shares;
  wanted.model_flops_per_sample = flops_of_sample(plan, beside);
  wanted.tokens_per_sample = tokens_counted(plan.job);
  wanted.samples_per_step = samples_of_step(plan.job);
  return wanted;
}

void tell_assumed_switches(Plan& plan) {
  if (!plan.job.megatron) return;
  const facts::MegatronKeys& keys = *plan.job.megatron;
  constexpr const char* kBecause =
      "The arguments are no whole command line (no train-iters, train-samples or lr)";
  if (!keys.assumed_switches.empty()) {
    plan.pace.assumptions.push_back(
        fmt::format("{}: {} count as on; false in import.megatron turns one off.", kBecause,
                    fmt::join(keys.assumed_switches, ", ")));
  }
  if (!keys.assumed_values.empty()) {  // graphs and buffers take memory too
    plan.warnings.push_back(
        fmt::format("{}: {} count as given, for VRAM and pace; import.megatron overrules each.",
                    kBecause, fmt::join(keys.assumed_values, ", ")));
  }
}

Result<void> measure_pace(const Request& request, const Busiest& most, Flops beside, Plan& plan) {
  const pace::Request wanted = asked(request, most, beside, plan);
  STEELYARD_TRY(step_time, pace::step_time(wanted));
  plan.pace = std::move(step_time);
  tell_swaps(request, *most.program, plan);
  tell_host_products(request, *most.program, plan);
  tell_host_step(request, *most.program, plan);
  tell_assumed_switches(plan);
  for (const std::string& missing : plan.pace.missing) {
    plan.warnings.push_back("no step time: " + missing + " is unknown");
  }
  return {};
}

// A step that waits for data is longer by the wait; every rate shrinks alike.
void add_data_stall(Plan& plan) {
  const auto& utilization = plan.feed.accelerator_utilization;
  if (!plan.pace.step || !utilization || utilization->value() >= 1.0 ||
      utilization->value() <= 0.0) {
    return;
  }
  const Seconds busy = *plan.pace.step;
  stretch_step(plan.pace, *utilization);
  plan.pace.breakdown.data_stall = *plan.pace.step - busy;
}

Result<void> measure_feed(const Request& request, Bytes sample, std::optional<Bytes> copied,
                          bool flow_only, Plan& plan) {
  feed::Request wanted;
  wanted.flow_only = flow_only;
  wanted.job = &plan.job;
  wanted.machine = &plan.machine;
  wanted.constants = &request.constants.host;
  wanted.sample_bytes = sample;
  wanted.copied_bytes = copied;
  if (plan.pace.samples) {
    wanted.needed_per_node = *plan.pace.samples / static_cast<double>(plan.job.machine.nodes);
  }
  if (plan.ram.capacity) {
    wanted.free_for_page_cache = std::max(Bytes(), *plan.ram.capacity - plan.ram.peak);
  }
  const facts::RamBytes& steady =
      plan.ram.phases[static_cast<std::size_t>(facts::RamPhase::steady)];
  wanted.loaders = steady[facts::RamCategory::loader_workers];
  wanted.batches = steady[facts::RamCategory::prefetch];
  wanted.pinned = steady[facts::RamCategory::pinned];
  STEELYARD_TRY(path, feed::data_path(wanted));
  plan.feed = std::move(path);
  add_data_stall(plan);
  add_checkpoints(plan);
  return {};
}

void count_cost(Plan& plan) {
  if (!plan.machine.price) return;
  facts::CostPlan cost;
  cost.per_hour = plan.machine.price->per_hour * static_cast<double>(plan.job.machine.nodes);
  cost.currency = plan.machine.price->currency;
  const double per_second = cost.per_hour / 3600.0;
  if (plan.pace.samples) {
    cost.per_million_samples = per_second / plan.pace.samples->value() * kMillion;
  }
  if (plan.pace.tokens) {
    cost.per_million_tokens = per_second / plan.pace.tokens->value() * kMillion;
  }
  const double installed = static_cast<double>(std::max<std::int64_t>(1, plan.machine.gpus));
  const double used =
      std::min(1.0, static_cast<double>(plan.job.machine.gpus.value_or(1)) / installed);
  const double works =
      plan.feed.accelerator_utilization ? plan.feed.accelerator_utilization->value() : 1.0;
  cost.wasted_per_hour = cost.per_hour * (1.0 - used * works);
  plan.cost = cost;
}

void state_confidence(const Request& request, Plan& plan) {
  if (!request.evidence) return;
  const facts::Likeness likeness = likeness_of(plan);
  const auto of = [&](facts::QuantityGroup group) {
    return confidence_of(group, likeness, *request.evidence);
  };
  plan.vram_confidence = of(facts::QuantityGroup::vram);
  plan.ram_confidence = of(facts::QuantityGroup::ram);
  plan.pace_confidence = of(facts::QuantityGroup::pace);
}

Result<void> measure_the_rest(const Request& request, const Busiest& most,
                              const model::Graph& graph, Flops beside, Plan& plan,
                              const Shortcuts& shortcuts = {}) {
  const Bytes sample = sample_bytes(request, graph, plan.job);
  STEELYARD_CHECK(measure_ram(request, *most.program, sample, plan));
  if (shortcuts.pace != nullptr) {
    plan.pace = *shortcuts.pace;
  } else {
    STEELYARD_CHECK(measure_pace(request, most, beside, plan));
  }
  STEELYARD_CHECK(measure_feed(request, sample, copied_bytes(request, graph, plan.job),
                               shortcuts.comparable_only, plan));
  place_ranks(*most.program, plan);
  return {};
}

}  // namespace

pace::Request PaceQuestion::ask(const facts::EfficiencyConstants& efficiency) const {
  pace::Request request = wanted;
  request.program = &program;
  request.job = &job;
  request.machine = &machine;
  request.efficiency = &efficiency;
  return request;
}

Result<PaceQuestion> pace_question(const Request& request) {
  Plan plan;
  STEELYARD_TRY(ranks, ranks_of(request));
  plan.job = std::move(ranks.job);
  plan.machine = request.machine;
  STEELYARD_TRY(graph, trained_graph(request.model, plan.job,
                                     sample_shape(plan.job, *plan.job.train.micro_batch)));
  const Busiest most = busiest(ranks.programs);
  describe_model(request, graph, most.program->states, plan);
  PaceQuestion question{.job = plan.job,
                        .machine = plan.machine,
                        .program = *most.program,
                        .wanted = asked(request, most, ranks.flops_beside, plan)};
  // None of these lives as long; ask() sets those that it needs.
  question.wanted.job = nullptr;
  question.wanted.machine = nullptr;
  question.wanted.program = nullptr;
  question.wanted.efficiency = nullptr;
  question.wanted.workshop = nullptr;
  return question;
}

Result<std::shared_ptr<const Prepared>> prepare(const Request& request) {
  STEELYARD_TRY(ranks, ranks_of(request));
  STEELYARD_TRY(graph, shared_graph(request.model, ranks.job,
                                    sample_shape(ranks.job, *ranks.job.train.micro_batch),
                                    request.workshop.get()));
  return std::make_shared<const Prepared>(Prepared{std::move(ranks), std::move(graph)});
}

Result<Plan> figures(const Request& request, const Shortcuts& shortcuts) {
  Plan plan;
  std::shared_ptr<const Prepared> prepared = shortcuts.prepared;
  if (prepared) {
    STEELYARD_TRY(job, resolve(request.job, request.model, request.machine,
                               request.constants.framework, request.workshop.get()));
    plan.job = std::move(job);
  } else {
    STEELYARD_TRY(made, prepare(request));
    prepared = std::move(made);
    plan.job = prepared->ranks.job;
  }
  const Programs& programs = prepared->ranks.programs;
  const model::Graph& graph = *prepared->graph;
  plan.machine = request.machine;
  const Flops beside = prepared->ranks.flops_beside;
  const Busiest most = busiest(programs);
  if (shortcuts.comparable_only && !request.vram) {
    STEELYARD_CHECK(measure_the_rest(request, most, graph, beside, plan, shortcuts));
    return plan;
  }
  describe_model(request, graph, most.program->states, plan);
  if (shortcuts.is_promising) {
    Plan sketch = plan;
    STEELYARD_CHECK(measure_the_rest(request, most, graph, beside, sketch));
    count_cost(sketch);
    if (!shortcuts.is_promising(sketch)) return sketch;
  }
  if (shortcuts.alike != nullptr && !facts::computes_on_host(plan.machine.gpu)) {
    plan.vram = shortcuts.alike->vram;
    plan.fits_vram = shortcuts.alike->fits_vram;
  } else if (request.vram) {
    measure_vram(request, programs, shortcuts, plan);
  }
  STEELYARD_CHECK(measure_the_rest(request, most, graph, beside, plan));
  count_cost(plan);
  state_confidence(request, plan);
  warn(request, graph, plan);
  plan.balance = balance_of(plan, most.program->states);
  return plan;
}

std::vector<Result<Plan>> compared(Request& request, const std::vector<facts::Job>& jobs) {
  request.advice = request.vram = false;
  request.job = jobs.front();
  Shortcuts shortcuts{.comparable_only = true};
  Plan first;  // of what all have in common
  if (const auto prepared = prepare(request)) {
    const Ranks& ranks = (*prepared)->ranks;
    first.job = ranks.job;
    first.machine = request.machine;
    if (measure_pace(request, busiest(ranks.programs), ranks.flops_beside, first)) {
      shortcuts.prepared = *prepared;
      shortcuts.pace = &first.pace;
    }
  }
  std::vector<Result<Plan>> plans;
  for (const facts::Job& job : jobs) {
    request.job = job;
    plans.push_back(figures(request, shortcuts));
  }
  return plans;
}

}  // namespace steelyard::plan
