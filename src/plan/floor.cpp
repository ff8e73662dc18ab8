#include "plan/floor.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <utility>
#include <vector>

#include "base/memo.h"
#include "facts/host.h"
#include "pace/pace.h"
#include "pace/prices.h"
#include "pace/stretch.h"
#include "plan/engine_states.h"
#include "plan/figures.h"
#include "plan/floor_key.h"
#include "plan/graphs.h"
#include "plan/layer_sums.h"
#include "plan/objective.h"
#include "plan/pace_request.h"
#include "plan/ranks.h"
#include "plan/resolve.h"
#include "ram/ram.h"
#include "step/offload_rules.h"
#include "step/pipeline.h"
#include "step/step.h"

namespace steelyard::plan {
namespace {

using facts::Job;
using facts::ParallelKeys;
using facts::Sharding;

// Replicas that stand for any number of them above one: what is cut into so many parts is next to
// nothing. Divides by the sizes of groups that layouts have.
constexpr std::int64_t kMany = std::int64_t{65536} * 3 * 5 * 7;

// Layers of each stage by depth, as the step room cuts them where the job says nothing else.
std::vector<std::int64_t> layers_of_stages(std::int64_t layers, std::int64_t stages,
                                           std::int64_t chunks_each) {
  const std::int64_t chunks = stages * chunks_each;
  const std::int64_t rest = layers % chunks, from = (chunks - rest) / 2;
  std::vector<std::int64_t> counts(static_cast<std::size_t>(stages), 0);
  for (std::int64_t i = 0; i < chunks; ++i) {
    counts[static_cast<std::size_t>(i % stages)] +=
        layers / chunks + (i >= from && i < from + rest ? 1 : 0);
  }
  return counts;
}

// Passes of a chunk through the first stage before its first backward pass.
std::int64_t passes_ahead(const ParallelKeys& p, std::int64_t micro_batches) {
  if (p.virtual_stages > 1) {
    const std::int64_t ahead = (p.pipeline - 1) * 2 + (p.virtual_stages - 1) * p.pipeline;
    return std::min(ahead + 1, micro_batches * p.virtual_stages);
  }
  if (p.schedule == facts::Schedule::gpipe) return micro_batches;
  return std::min(p.pipeline, micro_batches);
}

// As many of a chunk of the last stage wait for their backward pass, and no stage has less.
std::int64_t passes_waiting(const ParallelKeys& p, std::int64_t micro_batches) {
  if (p.virtual_stages > 1) {
    const std::int64_t ahead = (p.virtual_stages - 1) * p.pipeline;
    return std::min(ahead + 1, micro_batches * p.virtual_stages);
  }
  return p.schedule == facts::Schedule::gpipe ? micro_batches : 1;
}

// Layouts that are cut alike. What loads their data is none of it.
struct Kind {
  std::once_flag once;
  std::optional<Error> refused;
  Job job;  // resolved, without its model
  LayerSums sums;
  step::StateSizes states;
  Bytes sample;
  Ratio step_overhead{}, rank_spread{};
};

// Host memory of layouts that are cut alike for the host: it does not ask for the order of a
// pipeline's passes, for what is recomputed, or along what tensor ranks split activations.
struct HostMemory {
  std::once_flag once;
  std::optional<Error> refused;
  Bytes peak, training;  // of all phases; while it trains, to which what waits there is added
  std::int64_t ranks = 1;
};
using HostKey = std::array<std::int64_t, std::tuple_size_v<Key> + 5>;

// Whether step::check_offload refuses layouts, by all that it asks them for.
struct Refusal {
  std::once_flag once;
  bool refuses = false;
};
using OffloadKey = std::array<std::int64_t, 6>;

struct Shape {                       // of a pipeline
  std::vector<std::int64_t> layers;  // by stage
  std::int64_t micro_batches = 1, chunks = 1;
};

// The stage with most arithmetic, whose passes the plan counts; of several such the one that takes
// least. And what the others make it wait: the first micro-batch comes through those before it, the
// last one's backward goes back through them (pace/schedule.cpp plays no faster).
Seconds step_floor(const LayerSums& sums, const Shape& shape, bool waits) {
  const auto count = std::ssize(shape.layers);
  const bool apart = count > 1 && sums.tied;
  const auto flops_of = [&](std::int64_t stage) {
    return sums.flops * static_cast<double>(shape.layers[static_cast<std::size_t>(stage)]) +
           (stage == 0 ? sums.first_flops : 0.0) + (stage + 1 == count ? sums.last_flops : 0.0);
  };
  const auto seconds_of = [&](std::int64_t stage) {
    return sums.passes * static_cast<double>(shape.layers[static_cast<std::size_t>(stage)]) +
           (stage == 0 && !apart ? sums.first : Seconds()) +
           (stage + 1 < count ? Seconds()
            : apart           ? sums.last_products
                              : sums.last);
  };
  const double times = static_cast<double>(shape.micro_batches);
  if (!sums.alike) {  // any stage may be the busiest
    const auto least = *std::min_element(shape.layers.begin(), shape.layers.end());
    return sums.passes * static_cast<double>(least) * times;
  }
  constexpr double kAsMuch = 1.0 - 1e-9;
  double most = 0.0;
  for (std::int64_t stage = 0; stage < count; ++stage) most = std::max(most, flops_of(stage));
  std::optional<Seconds> least;
  double before = 0.0;  // arithmetic of the stages before this one
  for (std::int64_t stage = 0; stage < count; before += flops_of(stage++)) {
    if (flops_of(stage) < most * kAsMuch) continue;
    const Seconds all = seconds_of(stage) * times;
    const double turns = times * static_cast<double>(shape.chunks);
    const Seconds waited = waits ? all * (before / most * kAsMuch / turns) : Seconds();
    if (!least || all + waited < *least) least = all + waited;
  }
  return least.value_or(Seconds());
}

// What buffers of all parameters and gradients have of what replicas reduce, in no wider a type
// than fp32.
Bytes buffered(Bytes reduced, const LayerSums& states) {
  constexpr std::int64_t kWidest = 4;
  const std::int64_t elements = reduced.value() / kWidest;
  return Bytes(checked_multiply(elements, states.parameter_width + states.gradient_width));
}

// Before its first backward pass a stage holds the layers' states and what so many passes saved.
// Where further passes follow, the gradients that backward keeps are there too.
struct Held {
  Bytes layer, first;
};
Bytes vram_floor(const LayerSums& sums, const Held& held, const ParallelKeys& p,
                 const Shape& shape) {
  const std::int64_t layers = shape.layers.front();
  const std::int64_t ahead = passes_ahead(p, shape.micro_batches);
  const std::int64_t least_of_chunk = sums.layers / (p.pipeline * shape.chunks);
  Bytes floor = held.first + held.layer * layers +
                sums.saved * (shape.chunks > 1 ? least_of_chunk : layers) * ahead;
  if (shape.chunks == 1 && shape.micro_batches > ahead) floor += sums.gradients * layers;
  return floor;
}

}  // namespace

class Floors::Memory {
 public:
  explicit Memory(Request request) : request_(std::move(request)) {
    request_.advice = request_.vram = false;
    const Job& job = request_.job;
    usable_ = job.train.objective == facts::Objective::sft && !job.megatron &&
              job.model.companions.empty() && job.model.roles.empty() &&
              job.parallel.stage_layers.empty() && !facts::computes_on_host(request_.machine.gpu);
    if (request_.constants.framework.allocator.kind == facts::AllocatorKind::caching) {
      context_ = device_of(request_, job).context;
    }
  }

  Result<Floor> of(const Job& layout, const Floor* alike);

 private:
  bool refuses_offload(const Job& layout, bool accumulates);
  Result<Job> resolved(const Job& layout) const;
  Result<void> measure(const Job& layout, Kind& kind) const;
  Result<void> measure_states(const Job& layout, std::int64_t replicas, Kind& kind) const;
  Held held_by(const Job& layout, std::int64_t data, const LayerSums& sums);
  // `waiting`: activations of one rank that wait on the host.
  Result<Bytes> ram_of(const Job& layout, std::int64_t data, const Key& key, const Kind& kind,
                       Bytes waiting);
  Result<void> plan_ram(const Job& layout, std::int64_t data, const Kind& kind,
                        HostMemory& host) const;
  Result<step::Program> program_of(const Job& resolved) const;

  Request request_;
  bool usable_ = false;
  Bytes context_;  // of the card's driver and libraries
  Memo<Key, Kind> kinds_, states_, replicated_;
  Memo<HostKey, HostMemory> hosts_;
  Memo<OffloadKey, Refusal> refusals_;
};

// All layers on one rank.
Result<step::Program> Floors::Memory::program_of(const Job& resolved) const {
  model::SampleShape own = sample_shape(resolved, *resolved.train.micro_batch);
  own.sequence /= resolved.parallel.context;
  STEELYARD_TRY(local, shared_graph(request_.model, resolved, own, request_.workshop.get()));
  STEELYARD_TRY(programs,
                step::programs_of(*local, resolved, request_.constants.framework,
                                  request_.machine.gpu, {}, {.workshop = request_.workshop.get()}));
  return std::move(programs.front().program);
}

bool Floors::Memory::refuses_offload(const Job& layout, bool accumulates) {
  const facts::OffloadKeys& offload = layout.offload;
  const OffloadKey key = {number_of(offload.parameters),       number_of(offload.optimizer),
                          number_of(offload.gradients),        number_of(offload.activations),
                          number_of(layout.parallel.sharding), accumulates ? 1 : 0};
  Refusal& refusal = refusals_.at(key);
  std::call_once(refusal.once, [&] {
    Job asked = request_.job;
    asked.offload = offload;
    asked.parallel.sharding = layout.parallel.sharding;
    asked.train.gradient_accumulation = accumulates ? 2 : 1;
    if (holds_states(asked, request_.constants.framework)) asked.megatron.emplace();
    refusal.refuses = !step::check_offload(asked);
  });
  return refusal.refuses;
}

// A group that the job gives need not divide the replicas of every layout of a kind.
Result<Job> Floors::Memory::resolved(const Job& layout) const {
  Job asked = layout;
  asked.parallel.shard_group.reset();
  STEELYARD_TRY(job, resolve(std::move(asked), request_.model, request_.machine,
                             request_.constants.framework, request_.workshop.get()));
  if (layout.parallel.shard_group) job.parallel.shard_group = layout.parallel.shard_group;
  return job;
}

Result<void> Floors::Memory::measure(const Job& layout, Kind& kind) const {
  STEELYARD_TRY(job, resolved(layout));
  kind.job = job;
  kind.job.model = {};
  kind.job.origins.clear();
  kind.job.versions = {};
  job.parallel.pipeline = job.parallel.virtual_stages = 1;
  job.parallel.schedule = facts::Schedule::one_f_one_b;
  job.train.gradient_accumulation = *job.train.gradient_accumulation > 1 ? 2 : 1;
  if (*job.parallel.data > 1) {
    job.parallel.data = kMany;
    if (job.parallel.sharding != Sharding::hsdp && !layout.parallel.shard_group) {
      job.parallel.shard_group = kMany * job.parallel.context;
    }
  }
  STEELYARD_TRY(program, program_of(job));
  pace::Request wanted = pace_request(request_, job, request_.machine);
  wanted.program = &program;
  const facts::EfficiencyConstants constants = pace::constants_for(wanted);
  STEELYARD_TRY(used, pace::used_by_step(program));
  const ParallelKeys& p = job.parallel;
  const std::int64_t ranks = p.tensor * p.context * p.expert * p.expert_tensor;
  // Replicas' collectives are not counted; a network that is unknown does not matter.
  for (std::size_t i = 0; i < program.communication.size(); ++i) {
    if (program.communication[i].ranks > ranks) used.communication[i] = false;
  }
  pace::Missing missing;
  const pace::Prices prices = pace::price(program, used, wanted, constants, missing);
  model::SampleShape own = sample_shape(job, *job.train.micro_batch);
  own.sequence /= p.context;
  STEELYARD_TRY(graph, shared_graph(request_.model, job, own, request_.workshop.get()));
  kind.sums = layer_sums(*graph, program, missing.any() ? nullptr : &prices, ranks,
                         reduces_late(layout.parallel));
  kind.states = program.states;
  kind.sample = ceil_divide(program.states.batch_bytes, graph->batch / rows_of_sample(job));
  kind.step_overhead = constants.step_overhead;
  kind.rank_spread = constants.rank_spread;
  return {};
}

// Of the states: setup's and the optimizer's, and of buffers what a layer has in them. These come
// from two programs more: with the layout's own shards, and with so many replicas that what they
// reduce is told from all else.
Held Floors::Memory::held_by(const Job& layout, std::int64_t data, const LayerSums& sums) {
  const ParallelKeys& p = layout.parallel;
  const auto measured = [&](Memo<Key, Kind>& kinds, const Key& key,
                            std::int64_t replicas) -> const LayerSums* {
    Kind& kind = kinds.at(key);
    std::call_once(kind.once, [&] {
      const Result<void> done = measure_states(layout, replicas, kind);
      if (!done) kind.refused = done.error();
    });
    return kind.refused || !kind.sums.known ? nullptr : &kind.sums;
  };
  Key key = key_of(layout, data, false);
  key[kContext] = data * p.context;
  for (const Say beside : {kSequenceParallel, kMicroBatch, kRecompute, kRecomputeEvery,
                           kRecomputeLayers, kActivations, kReducesLate}) {
    key[beside] = 0;
  }
  const LayerSums* states = measured(states_, key, data * p.context);
  if (states == nullptr) return {sums.held, sums.first_held};
  Held held{states->held, states->first_held};
  if (states->parameter_width + states->gradient_width == 0) return held;
  key[kContext] = key[kReplicated] = 0;
  const LayerSums* replicated = measured(replicated_, key, kMany);
  if (replicated == nullptr) return held;
  held.layer += buffered(replicated->reduced, *states);
  held.first += buffered(replicated->first_reduced, *states);
  return held;
}

// States alone: of the smallest sample, cut as the layout's.
Result<void> Floors::Memory::measure_states(const Job& layout, std::int64_t replicas,
                                            Kind& kind) const {
  STEELYARD_TRY(job, resolved(layout));
  const bool told_apart = replicas == kMany;
  if (told_apart) job.parallel.shard_group = kMany;
  job.parallel.pipeline = job.parallel.virtual_stages = job.parallel.context = 1;
  job.parallel.schedule = facts::Schedule::one_f_one_b;
  job.parallel.data = replicas;
  job.train.gradient_accumulation = 1;
  job.train.recompute = {};
  job.train.micro_batch = 1;
  STEELYARD_TRY(program, program_of(job));
  STEELYARD_TRY(graph,
                shared_graph(request_.model, job, sample_shape(job, 1), request_.workshop.get()));
  kind.sums = layer_sums(*graph, program, nullptr, told_apart ? kMany - 1 : 0);
  return {};
}

Result<Bytes> Floors::Memory::ram_of(const Job& layout, std::int64_t data, const Key& key,
                                     const Kind& kind, Bytes waiting) {
  HostKey asked{};
  std::copy(key.begin(), key.end(), asked.begin());
  for (const Say beside :
       {kSequenceParallel, kRecompute, kRecomputeEvery, kRecomputeLayers, kReducesLate}) {
    asked[beside] = 0;
  }
  asked[key.size()] = layout.parallel.pipeline;
  asked[key.size() + 1] = data;
  asked[key.size() + 2] = layout.machine.nodes;
  asked[key.size() + 3] = kind.sample.value();
  asked[key.size() + 4] = layout.data.workers.value_or(-1);
  HostMemory& host = hosts_.at(asked);
  std::call_once(host.once, [&] {
    const Result<void> planned = plan_ram(layout, data, kind, host);
    if (!planned) host.refused = planned.error();
  });
  if (host.refused) return fail(*host.refused);
  return std::max(host.peak, host.training + waiting * host.ranks);
}

Result<void> Floors::Memory::plan_ram(const Job& layout, std::int64_t data, const Kind& kind,
                                      HostMemory& host) const {
  Job job = kind.job;
  const ParallelKeys& p = layout.parallel;
  job.parallel.tensor = p.tensor;
  job.parallel.pipeline = p.pipeline;
  job.parallel.data = data;
  job.parallel.shard_group = shard_group_of(layout, data);
  job.machine.nodes = layout.machine.nodes;
  if (layout.data.workers) job.data.workers = layout.data.workers;
  ram::Request wanted;
  wanted.job = &job;
  wanted.machine = &request_.machine;
  wanted.states = &kind.states;
  wanted.constants = &request_.constants.host;
  wanted.sample_bytes = kind.sample;
  wanted.words = &request_.constants.framework.operators;
  STEELYARD_TRY(planned, ram::host_memory(wanted));
  const auto in = [&planned](facts::RamPhase phase) {
    return planned.phases[static_cast<std::size_t>(phase)].total();
  };
  host.peak = planned.peak;
  host.training = std::max(in(facts::RamPhase::steady), in(facts::RamPhase::checkpoint));
  host.ranks = job.machine.gpus.value_or(1);
  return {};
}

Result<Floor> Floors::Memory::of(const Job& layout, const Floor* alike) {
  if (!usable_ || !layout.train.micro_batch || !layout.train.global_batch) return Floor();
  const ParallelKeys& p = layout.parallel;
  const std::int64_t gpus =
      checked_multiply(layout.machine.nodes, layout.machine.gpus.value_or(request_.machine.gpus));
  const std::int64_t data = gpus / (p.tensor * p.pipeline * p.context);
  if (data < 1) return Floor();
  const std::int64_t micro_batches =
      *layout.train.global_batch / checked_multiply(data, *layout.train.micro_batch);
  Floor floor;
  floor.refused =
      refuses_offload(layout, micro_batches > 1) || !step::fills_groups(p, micro_batches);
  if (floor.refused) return floor;
  const Key key = key_of(layout, data, micro_batches > 1);
  Kind& kind = kinds_.at(key);
  std::call_once(kind.once, [&] {
    const Result<void> measured = measure(layout, kind);
    if (!measured) kind.refused = measured.error();
  });
  // Of one of them, another may be planned: its own batch may be what was refused.
  const LayerSums& sums = kind.sums;
  if (kind.refused || !sums.known) return floor;
  floor.refused = checked_multiply(p.pipeline, p.virtual_stages) > sums.layers;
  if (floor.refused) return floor;
  floor.any = true;
  if (alike != nullptr && alike->any) {
    floor.step = alike->step;
    floor.vram = alike->vram;
  } else {
    const Shape shape{layers_of_stages(sums.layers, p.pipeline, p.virtual_stages), micro_batches,
                      p.virtual_stages};
    floor.step = step_floor(sums, shape, p.schedule != facts::Schedule::zero_bubble) *
                 pace::stretch_of(kind.step_overhead, kind.rank_spread, gpus);
    floor.vram = vram_floor(sums, held_by(layout, data, sums), p, shape) + context_;
  }
  const std::int64_t least_of_chunk = sums.layers / (p.pipeline * p.virtual_stages);
  const auto& loader = request_.constants.host.loader;
  const bool trains = !loader || !loader->alone;  // else no step is there to hold any
  const Bytes waiting =
      trains ? sums.offloaded * least_of_chunk * passes_waiting(p, micro_batches) : Bytes();
  STEELYARD_TRY(ram, ram_of(layout, data, key, kind, waiting));
  floor.ram = ram;
  return floor;
}

Floors::Floors(Request request) : memory_(std::make_unique<Memory>(std::move(request))) {}
Floors::~Floors() = default;

Result<Floor> Floors::of(const Job& layout, const Floor* alike) {
  return memory_->of(layout, alike);
}

}  // namespace steelyard::plan
