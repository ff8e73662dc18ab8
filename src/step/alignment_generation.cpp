// A policy that writes its samples: prompts in one pass, then tokens in stages of a growing cache.
// Sources: transformers/generation/utils.py (_sample), cache_utils.py (DynamicCache),
// trl/models/utils.py (unwrap_model_for_generation), vllm (gpu_memory_utilization, sleep).
#include <algorithm>
#include <utility>

#include "model/generation.h"
#include "step/alignment_composer.h"
#include "step/groups.h"
#include "step/pipeline.h"
#include "step/role_jobs.h"
#include "step/tensor_parallel.h"

namespace steelyard::step {

using facts::VramCategory;

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

// The rank's layers, and of their keys and values its own heads.
Result<model::Graph> Composer::held_by_rank(const model::Graph& graph) const {
  STEELYARD_TRY(local, split_over_ranks(graph, job_.parallel.tensor, false));
  if (job_.parallel.pipeline == 1) return local;
  STEELYARD_TRY(
      stages, stages_of(local, job_.parallel,
                        job_.megatron ? job_.megatron->chunk_layers : std::vector<std::int64_t>()));
  return std::move(stages.at(stage_).graph);
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

namespace {

// An engine of its own computes as much, and holds nothing in the trainer's allocator.
void forget_memory(Phase& phase) {
  for (Body& body : phase.bodies) {
    std::erase_if(body.events, [](const Event& event) { return event.kind != EventKind::work; });
  }
}

}  // namespace

Result<void> Composer::generate(const Generation& generation, std::vector<Pass>& passes) {
  const facts::Job job = generation_job(job_);
  Pass pass{generation.batches, {}};
  const auto add = [&](const model::Graph& graph, std::int64_t repeat) -> Result<Program> {
    STEELYARD_TRY(other, built(graph, job, {true, false}));
    const Joined joined = join(other, "generation");
    for (const Phase& forward : forward_phases(other)) {
      Phase phase = joined.phase(asked(forward, PhaseKind::generation));
      phase.repeat = repeat;
      pass.phases.push_back(std::move(phase));
    }
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
  STEELYARD_TRY(held, held_by_rank(generation.prompt));
  if (!engine) grow_caches(held, generation.prompt.sequence, prompt);
  if (!prompt.bodies.empty()) pass.phases.push_back(std::move(prompt));
  for (const Generation::Stage& stage : generation.stages) {
    Phase growth{PhaseKind::generation, {}, chunk};
    if (!engine) grow_caches(held, stage.past, growth);
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

}  // namespace steelyard::step
