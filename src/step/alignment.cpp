// Sources: trl/trainer/dpo_trainer.py (_compute_loss: the reference is asked while the policy's
// logits and activations are alive), grpo_trainer.py (_generate_and_score_completions, then
// _compute_loss), experimental/ppo/ppo_trainer.py (train: generate, score, then epochs of one
// optimizer over PolicyAndValueWrapper), trl/models/utils.py (prepare_deepspeed: the asked models
// are sharded under ZeRO-3 alone); verl/trainer/ppo/ray_trainer.py (fit: generate, old log-probs,
// reference, values, update critic, update actor), OpenRLHF/openrlhf/trainer/ppo_trainer.py.
#include "step/alignment.h"

#include <algorithm>
#include <utility>

#include "model/generation.h"
#include "step/groups.h"
#include "step/merge.h"
#include "step/role_jobs.h"

namespace steelyard::step {

namespace {

using facts::VramCategory;

class Composer {
 public:
  Composer(const facts::Job& job, const facts::FrameworkProfile& profile, const facts::Gpu& gpu,
           Program policy)
      : job_(job), profile_(profile), gpu_(gpu), program_(std::move(policy)) {
    chunks_ = chunks_of(program_);
  }

  Result<Program> compose(const Alignment& alignment);

 private:
  struct Asking {  // of one model
    std::vector<Phase> before, at, after;
  };

  Result<Program> built(const model::Graph& graph, const facts::Job& job,
                        const ModelUse& use) const;
  Joined join(const Program& other, const std::string& label);
  Result<Asking> ask(const AskedModel& model);
  Asking move_in(const Joined& joined, const Program& other, Phase phase, bool sharded);
  void ask_in_micro_batches(const std::vector<Asking>& askings);
  Result<void> add_critic(const model::Graph& graph, bool joint);
  Result<void> generate(const Generation& generation, std::vector<Pass>& passes);
  void gather_all(const Joined& joined, const Program& whole, Phase& first, Phase& last);
  void grow_caches(const model::Graph& graph, std::int64_t tokens, Phase& phase);
  void drop_caches(Phase& phase);
  void keep_scores(std::int64_t numbers, Phase& last);
  void hold_engine(const Generation& generation, std::vector<Pass>& passes);
  void hold_rollout(Bytes bytes);
  std::int32_t slot(Bytes bytes, VramCategory category, const std::string& text);
  void add_work(std::vector<Event>& events, WorkKind kind, Bytes traffic, const std::string& text);
  void add_states(const StateSizes& states, bool trains, bool waits, bool sharded);
  void count_kernels();

  const facts::Job& job_;
  const facts::FrameworkProfile& profile_;
  const facts::Gpu& gpu_;
  Program program_;
  std::int32_t chunks_ = 0;
  std::vector<Body> caches_;  // what is held of the past, as it was allocated last
};

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

Result<Program> Composer::built(const model::Graph& graph, const facts::Job& job,
                                const ModelUse& use) const {
  STEELYARD_TRY(programs, programs_of(graph, job, profile_, gpu_, {}, use));
  return std::move(programs.front().program);
}

Joined Composer::join(const Program& other, const std::string& label) {
  Joined joined(program_, other, label, chunks_);
  chunks_ += chunks_of(other);
  return joined;
}

// Counts a further model among what the host loads, holds and saves.
void Composer::add_states(const StateSizes& states, bool trains, bool waits, bool sharded) {
  StateSizes& all = program_.states;
  all.beside += states.parameters;
  all.parameters += states.parameters;
  all.parameter_bytes += states.parameter_bytes;
  all.weights.insert(all.weights.end(), states.weights.begin(), states.weights.end());
  all.made_bytes += states.made_bytes;
  all.largest_block_bytes = std::max(all.largest_block_bytes, states.largest_block_bytes);
  if (!trains) {
    all.frozen_beside += states.parameter_bytes;
    const std::int64_t shards = sharded ? job_.parallel.shard_group.value_or(1) : 1;
    if (waits) all.waiting_bytes += ceil_divide(states.parameter_bytes, shards);
    return;
  }
  all.trains_beside += states.trainable;
  all.trainable += states.trainable;
  all.trainable_bytes += states.trainable_bytes;
  all.gradient_bytes += states.gradient_bytes;
  all.optimizer_bytes += states.optimizer_bytes;
}

// The weights come to the card before the model is asked and leave it afterwards.
Composer::Asking Composer::move_in(const Joined& joined, const Program& other, Phase phase,
                                   bool sharded) {
  Asking asking;
  Phase in{PhaseKind::scoring, {}, phase.chunk};
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
  static_cast<void>(sharded);
  asking.before = {std::move(in)};
  asking.at = {std::move(phase)};
  asking.after = {std::move(out)};
  return asking;
}

Result<Composer::Asking> Composer::ask(const AskedModel& model) {
  const facts::Job job = asked_job(job_, model.as_policy, model.waits);
  STEELYARD_TRY(other, built(model.graph, job, {true, model.adapters_off}));
  const Joined joined = join(other, model.label);
  const bool sharded = shards_parameters(job.parallel.sharding);
  if (model.own_weights) add_states(other.states, false, model.waits, sharded);
  Phase phase = joined.phase(asked(*phase_of(other, PhaseKind::forward), PhaseKind::scoring));
  const bool fetched = job.offload.parameters != facts::OffloadTo::none;
  if (model.own_weights && model.waits && !fetched) {
    return move_in(joined, other, std::move(phase), sharded);
  }
  if (model.own_weights) {
    Phase held{PhaseKind::setup, {}};
    for (const Body& body : parameters_of(other)) held.bodies.push_back(joined.body(body));
    if (!held.bodies.empty()) program_.setup.push_back({1, {std::move(held)}});
  }
  return Asking{{}, {std::move(phase)}, {}};
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

Result<void> Composer::add_critic(const model::Graph& graph, bool joint) {
  STEELYARD_TRY(other, built(graph, critic_job(job_), {}));
  const Joined joined = join(other, "critic");
  add_states(other.states, true, false, false);
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
  if (!joint || passes.size() != program_.step.size()) {
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

// The cache as it is after `tokens` tokens; what it was before goes.
void Composer::grow_caches(const model::Graph& graph, std::int64_t tokens, Phase& phase) {
  const facts::DType dtype = program_.compute;
  std::vector<Body> grown;
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      Body body{.layer = "generation " + block.name, .repeat = segment.repeat, .events = {}};
      for (const model::LayerCache& cache : model::caches_of(block)) {
        const std::int64_t rows = checked_multiply(graph.batch, cache.tokens_of(tokens));
        for (const std::int64_t width : {cache.keys, cache.values}) {
          const Bytes bytes(checked_multiply(checked_multiply(rows, width), bytes_of(dtype)));
          body.events.push_back(
              {EventKind::allocate, slot(bytes, VramCategory::activations, "generation: cache")});
        }
      }
      if (!body.events.empty()) grown.push_back(std::move(body));
    }
  }
  for (std::size_t i = 0; i < grown.size(); ++i) {
    Body body = grown[i];
    if (i < caches_.size()) {
      for (std::size_t e = 0; e < caches_[i].events.size(); ++e) {
        const auto at = static_cast<std::ptrdiff_t>(2 * e + 1);
        body.events.insert(body.events.begin() + at, {EventKind::free, caches_[i].events[e].index});
      }
    }
    phase.bodies.push_back(std::move(body));
  }
  caches_ = std::move(grown);
}

void Composer::drop_caches(Phase& phase) {
  for (Body& body : caches_) {
    for (Event& event : body.events) event.kind = EventKind::free;
    phase.bodies.push_back(std::move(body));
  }
  caches_.clear();
}

void Composer::gather_all(const Joined& joined, const Program& whole, Phase& first, Phase& last) {
  std::vector<Body> gathered;
  for (const Body& held : parameters_of(whole)) {
    Body body = joined.body(held);
    Bytes bytes;
    for (const Event& event : body.events) {
      bytes += program_.slots[static_cast<std::size_t>(event.index)].bytes;
    }
    const Group group = groups_of(job_).shards;
    if (group.ranks > 1) {
      program_.names.push_back("all_gather for the generation");
      program_.communication.push_back({Collective::all_gather, bytes, group.ranks,
                                        group.ranks_per_node, false,
                                        static_cast<std::int32_t>(program_.names.size()) - 1});
      body.events.push_back(
          {EventKind::communicate, static_cast<std::int32_t>(program_.communication.size()) - 1});
    }
    Body free{.layer = body.layer, .repeat = body.repeat, .events = {}};
    for (const Event& event : body.events) {
      if (event.kind == EventKind::allocate) free.events.push_back({EventKind::free, event.index});
    }
    gathered.push_back(std::move(body));
    last.bodies.push_back(std::move(free));
  }
  first.bodies.insert(first.bodies.begin(), gathered.begin(), gathered.end());
}

// TRL's PPOTrainer: `logitss`, all samples' scores padded into one tensor beside those of each
// batch; the variable holds them until the next generation's are there.
void Composer::keep_scores(std::int64_t numbers, Phase& last) {
  if (numbers == 0) return;
  const Bytes bytes(checked_multiply(numbers, bytes_of(facts::DType::fp32)));
  const std::int32_t parts = slot(bytes, VramCategory::activations, "generation: scores");
  const std::int32_t fresh = slot(bytes, VramCategory::activations, "generation: padded scores");
  const std::int32_t kept = slot(bytes, VramCategory::activations, "generation: padded scores");
  program_.slots.back().outlives_micro_batch = true;
  program_.gradients.push_back({fresh, kept});
  Body held{.layer = "generation scores", .repeat = 1, .events = {{EventKind::allocate, kept}}};
  program_.setup.push_back({1, {{PhaseKind::setup, {std::move(held)}}}});
  Body body{.layer = "generation scores", .repeat = 1, .events = {}};
  body.events = {
      {EventKind::allocate, parts},
      {EventKind::allocate, fresh},
      {EventKind::free, kept},
      {EventKind::keep_gradient, static_cast<std::int32_t>(program_.gradients.size()) - 1},
      {EventKind::free, parts}};
  last.bodies.push_back(std::move(body));
}

// vLLM beside the trainer takes its share of the card, weights and cache together.
void Composer::hold_engine(const Generation& generation, std::vector<Pass>& passes) {
  const std::int32_t held = slot(generation.engine, VramCategory::runtime, "inference engine");
  Body in{.layer = "inference engine", .repeat = 1, .events = {{EventKind::allocate, held}}};
  if (!generation.engine_sleeps) {
    program_.setup.push_back({1, {{PhaseKind::setup, {std::move(in)}}}});
    return;
  }
  Body out{.layer = "inference engine", .repeat = 1, .events = {{EventKind::free, held}}};
  out.events.push_back({EventKind::release_cached, held});
  Phase wake{PhaseKind::generation, {std::move(in)}, chunks_};
  Phase sleep{PhaseKind::generation, {std::move(out)}, chunks_};
  passes.insert(passes.begin(), {1, {std::move(wake)}});
  passes.push_back({1, {std::move(sleep)}});
}

// An engine of its own computes as much, and holds nothing in the trainer's allocator.
void forget_memory(Phase& phase) {
  for (Body& body : phase.bodies) {
    std::erase_if(body.events, [](const Event& event) { return event.kind != EventKind::work; });
  }
}

Result<void> Composer::generate(const Generation& generation, std::vector<Pass>& passes) {
  const facts::Job job = generation_job(job_);
  Pass pass{generation.batches, {}};
  const auto add = [&](const model::Graph& graph, std::int64_t repeat) -> Result<Program> {
    STEELYARD_TRY(other, built(graph, job, {true, false}));
    const Joined joined = join(other, "generation");
    Phase phase = joined.phase(asked(*phase_of(other, PhaseKind::forward), PhaseKind::generation));
    phase.repeat = repeat;
    pass.phases.push_back(std::move(phase));
    return other;
  };
  STEELYARD_TRY(whole, add(generation.prompt, 1));
  const bool engine = generation.engine > Bytes();
  const std::int32_t chunk = chunks_++;
  Phase last{PhaseKind::generation, {}, chunk};
  Phase first = last;
  if (shards_parameters(job_.parallel.sharding) && !engine) {
    const Joined joined = join(whole, "generation");
    gather_all(joined, whole, first, last);
  }
  Phase prompt{PhaseKind::generation, {}, chunk};
  if (!engine) grow_caches(generation.prompt, generation.prompt.sequence, prompt);
  if (!prompt.bodies.empty()) pass.phases.push_back(std::move(prompt));
  for (const Generation::Stage& stage : generation.stages) {
    Phase growth{PhaseKind::generation, {}, chunk};
    if (!engine) grow_caches(generation.prompt, stage.past, growth);
    if (!growth.bodies.empty()) pass.phases.push_back(std::move(growth));
    STEELYARD_TRY(unused, add(stage.token, stage.tokens));
    static_cast<void>(unused);
  }
  if (!engine) {
    Phase done{PhaseKind::generation, {}, chunk};
    drop_caches(done);
    pass.phases.push_back(std::move(done));
  }
  if (engine) std::for_each(pass.phases.begin(), pass.phases.end(), forget_memory);
  keep_scores(engine ? 0 : generation.kept_scores, last);
  if (!first.bodies.empty()) passes.push_back({1, {std::move(first)}});
  passes.push_back(std::move(pass));
  if (!last.bodies.empty()) passes.push_back({1, {std::move(last)}});
  if (engine) hold_engine(generation, passes);
  return {};
}

void Composer::hold_rollout(Bytes bytes) {
  const std::int32_t held = slot(bytes, VramCategory::batch, "rollout");
  Body body{.layer = "rollout", .repeat = 1, .events = {{EventKind::allocate, held}}};
  program_.setup.push_back({1, {{PhaseKind::setup, {std::move(body)}}}});
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
  if (!alignment.rolls_out()) {
    ask_in_micro_batches(askings);
    count_kernels();
    return std::move(program_);
  }
  std::vector<Pass> passes;
  for (const Generation& generation : alignment.generation) {
    STEELYARD_CHECK(generate(generation, passes));
  }
  for (Asking& asking : askings) {
    if (!asking.before.empty()) passes.push_back({1, std::move(asking.before)});
    passes.push_back({alignment.asks, std::move(asking.at)});
    if (!asking.after.empty()) passes.push_back({1, std::move(asking.after)});
  }
  hold_rollout(alignment.rollout);
  program_.updates = {passes.size(), passes.size() + program_.step.size(), alignment.updates};
  program_.step.insert(program_.step.begin(), std::make_move_iterator(passes.begin()),
                       std::make_move_iterator(passes.end()));
  count_kernels();
  return std::move(program_);
}

Result<void> check(const facts::Job& job) {
  const auto whole = [](const char* key, std::int64_t value) -> Result<void> {
    if (value == 1) return {};
    return fail({ErrorCode::not_supported,
                 key,
                 std::to_string(value),
                 "1 where train.objective is not sft",
                 "models of several roles are planned on ranks that hold whole layers: shard them "
                 "with parallel.sharding",
                 "",
                 {}});
  };
  STEELYARD_CHECK(whole("parallel.pipeline", job.parallel.pipeline));
  STEELYARD_CHECK(whole("parallel.tensor", job.parallel.tensor));
  STEELYARD_CHECK(whole("parallel.context", job.parallel.context));
  return whole("parallel.expert", job.parallel.expert);
}

}  // namespace

Result<std::vector<RankProgram>> programs_of_several(
    const model::Graph& policy, const facts::Job& job, const facts::FrameworkProfile& profile,
    const facts::Gpu& gpu, std::vector<Companion> companions, const Alignment& alignment) {
  STEELYARD_CHECK(check(job));
  STEELYARD_TRY(programs, programs_of(policy, job, profile, gpu, std::move(companions)));
  for (RankProgram& rank : programs) {
    STEELYARD_TRY(program, Composer(job, profile, gpu, std::move(rank.program)).compose(alignment));
    rank.program = std::move(program);
  }
  return programs;
}

}  // namespace steelyard::step
