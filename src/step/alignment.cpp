// Sources: trl/trainer/dpo_trainer.py (_compute_loss: the reference is asked while the policy's
// logits and activations are alive), grpo_trainer.py (_generate_and_score_completions, then
// _compute_loss), experimental/ppo/ppo_trainer.py (train: generate, score, then epochs of one
// optimizer over PolicyAndValueWrapper), trl/models/utils.py (prepare_deepspeed: the asked models
// are sharded under ZeRO-3 alone); verl/trainer/ppo/ray_trainer.py (fit: generate, old log-probs,
// reference, values, update critic, update actor), OpenRLHF/openrlhf/trainer/ppo_trainer.py.
#include "step/alignment.h"

#include <algorithm>
#include <utility>

#include "step/alignment_composer.h"
#include "step/role_jobs.h"

namespace steelyard::step {

using facts::VramCategory;

std::int32_t Composer::slot(Bytes bytes, VramCategory category, const std::string& text) {
  program_.names.push_back(text);
  const auto name = static_cast<std::int32_t>(program_.names.size()) - 1;
  program_.slots.push_back({bytes, category, Stream::compute, name, false});
  return static_cast<std::int32_t>(program_.slots.size()) - 1;
}

void Composer::add_work(std::vector<Event>& events, WorkKind kind, Bytes traffic,
                        const std::string& text) {
  program_.names.push_back(text);
  Work work;
  work.kind = kind;
  work.traffic = traffic;
  work.name = static_cast<std::int32_t>(program_.names.size()) - 1;
  program_.work.push_back(work);
  events.push_back({EventKind::work, static_cast<std::int32_t>(program_.work.size()) - 1});
}

RolePrograms::RolePrograms(const facts::Job& job, const facts::FrameworkProfile& profile,
                           const facts::Gpu& gpu)
    : job_(job), profile_(profile), forward_only_(profile), gpu_(gpu) {
  forward_only_.pipeline_releases_outputs = true;
  forward_only_.pipeline_holds_inputs = forward_only_.pipeline_returns_logits = false;
  forward_only_.pipeline_keeps_buffers = forward_only_.pipeline_keeps_outputs = false;
  forward_only_.pipeline_keeps_gradients = false;
}

Result<const std::vector<RankProgram>*> RolePrograms::of(const model::Graph& graph,
                                                         const facts::Job& job,
                                                         const ModelUse& use) {
  const auto known = std::ranges::find(known_, &graph, &Known::graph);
  if (known != known_.end()) return &known->programs;
  STEELYARD_TRY(programs,
                programs_of(graph, job, use.asks_only ? forward_only_ : profile_, gpu_, {}, use));
  known_.push_back({&graph, std::move(programs)});
  return &known_.back().programs;
}

Result<Program> Composer::built(const model::Graph& graph, const facts::Job& job,
                                const ModelUse& use) {
  STEELYARD_TRY(programs, roles_.of(graph, job, use));
  return programs->at(stage_).program;
}

Joined Composer::join(const Program& other, const std::string& label) {
  Joined joined(program_, other, label, chunks_);
  chunks_ += chunks_of(other);
  return joined;
}

// Counts a further model among what the host loads, holds and saves.
void Composer::add_states(const StateSizes& states, bool trains, Bytes waiting) {
  StateSizes& all = program_.states;
  all.beside += states.parameters;
  all.parameters += states.parameters;
  all.parameter_bytes += states.parameter_bytes;
  all.weights.insert(all.weights.end(), states.weights.begin(), states.weights.end());
  all.made_bytes += states.made_bytes;
  all.largest_block_bytes = std::max(all.largest_block_bytes, states.largest_block_bytes);
  all.waiting_bytes += waiting;
  if (!trains) {
    all.frozen_beside += states.parameter_bytes;
    return;
  }
  all.trains_beside += states.trainable;
  all.trainable += states.trainable;
  all.trainable_bytes += states.trainable_bytes;
  all.gradient_bytes += states.gradient_bytes;
  all.optimizer_bytes += states.optimizer_bytes;
}

// The weights come to the card before the model is asked and leave it afterwards.
Composer::Asking Composer::move_in(const Joined& joined, const Program& other,
                                   std::vector<Phase> phases) {
  Asking asking;
  Phase in{PhaseKind::scoring, {}, phases.front().chunk};
  Phase out = in;
  for (const Body& held : parameters_of(other)) {
    Body arrives = joined.body(held);
    Body leaves{.layer = arrives.layer, .repeat = arrives.repeat, .events = {}};
    Bytes bytes;
    for (const Event& event : arrives.events) {
      bytes += program_.slots[static_cast<std::size_t>(event.index)].bytes;
      leaves.events.push_back({EventKind::free, event.index});
    }
    add_work(arrives.events, WorkKind::transfer, bytes, "weights from the host");
    in.bodies.push_back(std::move(arrives));
    out.bodies.push_back(std::move(leaves));
  }
  asking.before = {std::move(in)};
  asking.at = std::move(phases);
  asking.after = {std::move(out)};
  return asking;
}

namespace {

// Of a rank: what it holds of the model when that is on the card.
Bytes parameter_bytes_of(const Program& program) {
  Bytes sum;
  for (const Body& body : parameters_of(program)) {
    for (const Event& event : body.events) {
      if (event.kind != EventKind::allocate) continue;
      sum += body.repeat * program.slots[static_cast<std::size_t>(event.index)].bytes;
    }
  }
  return sum;
}

}  // namespace

// In host memory a rank has the part that it brings to the card. What ZeRO-3 fetches layer by layer
// is never there as a whole.
Result<Composer::Asking> Composer::ask(const AskedModel& model) {
  const facts::Job job = asked_job(job_, model.as_policy, model.waits);
  STEELYARD_TRY(other, built(model.graph, job, {true, model.adapters_off}));
  const Joined joined = join(other, model.label);
  const bool fetched = job.offload.parameters != facts::OffloadTo::none;
  if (model.own_weights) {
    const std::int64_t parts = checked_multiply(
        job_.parallel.tensor * job_.parallel.pipeline,
        shards_parameters(job_.parallel.sharding) ? job_.parallel.shard_group.value_or(1) : 1);
    const Bytes own =
        fetched ? ceil_divide(other.states.parameter_bytes, parts) : parameter_bytes_of(other);
    add_states(other.states, false, model.waits ? own : Bytes());
  }
  std::vector<Phase> phases;
  for (const Phase& forward : forward_phases(other)) {
    phases.push_back(joined.phase(asked(forward, PhaseKind::scoring)));
  }
  if (model.own_weights && model.waits && !fetched) {
    return move_in(joined, other, std::move(phases));
  }
  if (model.own_weights) {
    Phase held{PhaseKind::setup, {}};
    for (const Body& body : parameters_of(other)) held.bodies.push_back(joined.body(body));
    if (!held.bodies.empty()) program_.setup.push_back({1, {std::move(held)}});
  }
  return Asking{{}, std::move(phases), {}};
}

// NeMo-Aligner asks about all of a step's samples before it learns from them (algorithms/dpo.py,
// augment_dataloader); a pipeline in the midst of its schedule cannot be asked.
bool Composer::asks_ahead() const {
  const auto word = profile_.operators.find("asked_models");
  return job_.parallel.pipeline > 1 ||
         (word != profile_.operators.end() && word->second == "ahead");
}

void Composer::ask_ahead(std::vector<Asking> askings, std::int64_t times,
                         std::vector<Pass>& passes) const {
  for (Asking& asking : askings) {
    if (!asking.before.empty()) passes.push_back({1, std::move(asking.before)});
    passes.push_back({times, std::move(asking.at)});
    if (!asking.after.empty()) passes.push_back({1, std::move(asking.after)});
  }
}

// Behind each forward pass of the policy, in front of its backward pass.
void Composer::ask_in_micro_batches(const std::vector<Asking>& askings) {
  for (Pass& pass : program_.step) {
    const bool forwards = std::any_of(pass.phases.begin(), pass.phases.end(),
                                      [](const Phase& p) { return p.kind == PhaseKind::forward; });
    if (!forwards) continue;
    std::vector<std::int32_t> order = pass.order;
    if (order.empty()) {
      for (std::size_t i = 0; i < pass.phases.size(); ++i) {
        order.push_back(static_cast<std::int32_t>(i));
      }
    }
    std::vector<std::int32_t> asked;
    for (const Asking& asking : askings) {
      for (const auto* phases : {&asking.before, &asking.at, &asking.after}) {
        for (const Phase& phase : *phases) {
          asked.push_back(static_cast<std::int32_t>(pass.phases.size()));
          pass.phases.push_back(phase);
        }
      }
    }
    pass.order.clear();
    for (const std::int32_t index : order) {
      pass.order.push_back(index);
      if (pass.phases[static_cast<std::size_t>(index)].kind != PhaseKind::forward) continue;
      pass.order.insert(pass.order.end(), asked.begin(), asked.end());
    }
  }
}

namespace {

bool has_micro_batches(const Pass& pass) {
  return pass.phases.front().kind == PhaseKind::forward ||
         pass.phases.front().kind == PhaseKind::backward;
}

// One backward pass of a loss of both: the model whose forward pass came last comes first.
Pass side_by_side(const Pass& policy, Pass critic) {
  const auto order_of = [](const Pass& pass) {
    std::vector<std::int32_t> order = pass.order;
    for (std::size_t i = 0; pass.order.empty() && i < pass.phases.size(); ++i) {
      order.push_back(static_cast<std::int32_t>(i));
    }
    return order;
  };
  const std::vector<std::int32_t> first = order_of(critic), second = order_of(policy);
  Pass both = std::move(critic);
  both.order.clear();
  const auto behind = static_cast<std::int32_t>(both.phases.size());
  both.phases.insert(both.phases.end(), policy.phases.begin(), policy.phases.end());
  for (std::size_t i = 0; i < first.size() && i < second.size(); ++i) {
    const bool forward = both.phases[static_cast<std::size_t>(first[i])].kind == PhaseKind::forward;
    both.order.push_back(forward ? first[i] : behind + second[i]);
    both.order.push_back(forward ? behind + second[i] : first[i]);
  }
  return both;
}

}  // namespace

Result<void> Composer::add_critic(const model::Graph& graph, bool joint) {
  STEELYARD_TRY(other, built(graph, critic_job(job_), {}));
  const Joined joined = join(other, "critic");
  add_states(other.states, true, Bytes());
  for (const Pass& pass : other.setup) {
    if (pass.phases.front().bodies.front().layer == "batch") continue;  // the policy's
    program_.setup.push_back(joined.pass(pass));
  }
  for (const Pass& pass : other.first_optimizer) {
    program_.first_optimizer.push_back(joined.pass(pass));
  }
  std::vector<Pass> passes;
  for (const Pass& pass : other.step) passes.push_back(joined.pass(pass));
  program_.communicators += other.communicators > 0 ? 1 : 0;
  const bool alone = !joint || job_.parallel.pipeline > 1;  // a schedule is of one model
  if (alone || passes.size() != program_.step.size()) {
    program_.step.insert(program_.step.begin(), passes.begin(), passes.end());
    return {};
  }
  std::vector<Pass> both;
  for (std::size_t i = 0; i < passes.size(); ++i) {
    if (has_micro_batches(passes[i])) {
      both.push_back(side_by_side(program_.step[i], std::move(passes[i])));
    } else {
      both.push_back(std::move(program_.step[i]));
      both.push_back(std::move(passes[i]));
    }
  }
  program_.step = std::move(both);
  return {};
}

void Composer::count_kernels() {
  program_.kernels = 0;
  for (std::size_t i = 0; i < program_.step.size(); ++i) {
    const Pass& pass = program_.step[i];
    for_each_phase(pass, [&](const Phase& phase) {
      for (const Body& body : phase.bodies) {
        const auto launched =
            std::count_if(body.events.begin(), body.events.end(),
                          [](const Event& event) { return event.kind == EventKind::work; });
        program_.kernels +=
            program_.updates.of(i) * pass.repeat * phase.repeat * body.repeat * launched;
      }
    });
  }
}

Result<Program> Composer::compose(const Alignment& alignment) {
  if (!alignment.critic.empty()) {
    STEELYARD_CHECK(add_critic(alignment.critic.front(), alignment.joint_critic));
  }
  std::vector<Asking> askings;
  for (const AskedModel& model : alignment.asked) {
    STEELYARD_TRY(asking, ask(model));
    askings.push_back(std::move(asking));
  }
  std::vector<Pass> passes;
  if (!alignment.rolls_out()) {
    if (asks_ahead()) {
      ask_ahead(std::move(askings), job_.train.gradient_accumulation.value_or(1), passes);
      program_.step.insert(program_.step.begin(), std::make_move_iterator(passes.begin()),
                           std::make_move_iterator(passes.end()));
    } else {
      ask_in_micro_batches(askings);
    }
    count_kernels();
    return std::move(program_);
  }
  for (const Generation& generation : alignment.generation) {
    STEELYARD_CHECK(generate(generation, passes));
  }
  ask_ahead(std::move(askings), alignment.asks, passes);
  hold_rollout(alignment.rollout);
  program_.updates = {passes.size(), passes.size() + program_.step.size(), alignment.updates};
  program_.step.insert(program_.step.begin(), std::make_move_iterator(passes.begin()),
                       std::make_move_iterator(passes.end()));
  count_kernels();
  return std::move(program_);
}

Result<std::vector<RankProgram>> programs_of_several(
    const model::Graph& policy, const facts::Job& job, const facts::FrameworkProfile& profile,
    const facts::Gpu& gpu, std::vector<Companion> companions, const Alignment& alignment) {
  STEELYARD_TRY(programs, programs_of(policy, job, profile, gpu, std::move(companions)));
  RolePrograms roles(job, profile, gpu);
  for (std::size_t stage = 0; stage < programs.size(); ++stage) {
    RankProgram& rank = programs[stage];
    STEELYARD_TRY(program, Composer(roles, stage, std::move(rank.program)).compose(alignment));
    rank.program = std::move(program);
  }
  return programs;
}

}  // namespace steelyard::step
