#include "step/assembler.h"

#include <algorithm>
#include <utility>

#include "step/trace_parts.h"

namespace steelyard::step {

Assembler::Assembler(const Stage& stage, const facts::Job& job,
                     const facts::FrameworkProfile& profile, const Variants& variants,
                     const Layout& layout, const AdapterHabits& habits)
    : stage_(stage),
      graph_(stage.graph),
      job_(job),
      profile_(profile),
      variants_(variants),
      layout_(layout),
      habits_(habits),
      groups_(groups_of(job)) {}

Program Assembler::assemble() {
  if (!leaves_out_states()) add_parameters();
  add_companions();
  add_fp8_casts();
  add_batch();
  add_global_buffer();
  add_captures();
  if (!leaves_out_states()) add_optimizer_states();
  add_communication_buffers();
  if (!profile_.gradients_set_to_none && !layout_.on_host.gradients && !leaves_out_states()) {
    add_existing_gradients();
  }
  add_micro_batches();
  add_unscaling();
  add_clipping();
  add_optimizer_step();
  add_zero_grad();
  program_.offloaded_activations = waiting_on_the_host();
  count_kernels();
  program_.compute = layout_.arithmetic.compute;
  program_.gradients_outlive_step = layout_.gradients_outlive_step;
  if (!variants_.limits_gathers) program_.units_in_flight = 0;
  program_.ranks = checked_multiply(groups_.replicas.ranks, groups_.tensor.ranks);
  for (const Group& group : {groups_.replicas, groups_.tensor, groups_.context, groups_.pipeline,
                             groups_.expert, groups_.expert_tensor}) {
    if (group.ranks > 1) ++program_.communicators;
  }
  program_.communicators += further_communicators();
  return std::move(program_);
}

// [operators] communicators: that of all ranks, where the framework meets in it by NCCL.
std::int64_t Assembler::further_communicators() const {
  const auto word = profile_.operators.find("communicators");
  if (word == profile_.operators.end() || word->second != "world_too") return 0;
  return program_.ranks * groups_.pipeline.ranks > 1 ? 1 : 0;
}

// Of states that nothing in a step asks for again, where time alone is asked for.
bool Assembler::leaves_out_states() const {
  return times_only_ && !layout_.gathers && !layout_.flat_buckets && !layout_.optimizer.functional;
}

void Assembler::count_kernels() {
  for (const Pass& pass : program_.step) {
    std::vector<std::int64_t> launched;  // by each phase, which may come more than once
    for (const Phase& phase : pass.phases) {
      launched.push_back(0);
      for (const Body& body : phase.bodies) {
        launched.back() +=
            body.repeat * std::count_if(body.events.begin(), body.events.end(),
                                        [](Event event) { return event.kind == EventKind::work; });
      }
    }
    for_each_phase(pass, [&](const Phase& phase) {
      program_.kernels +=
          pass.repeat * launched[static_cast<std::size_t>(&phase - pass.phases.data())];
    });
  }
}

std::int32_t Assembler::name(std::string_view text) {
  if (const auto known = names_.find(text); known != names_.end()) return known->second;
  const auto index = static_cast<std::int32_t>(program_.names.size());
  program_.names.emplace_back(text);
  names_.emplace(text, index);
  return index;
}

std::int32_t Assembler::slot(Bytes bytes, facts::VramCategory category, std::string_view text,
                             Stream stream) {
  program_.slots.push_back({bytes, category, stream, name(text), false});
  return static_cast<std::int32_t>(program_.slots.size()) - 1;
}

std::int32_t Assembler::typed(std::int32_t slot_index, DType dtype, const model::Shape& whole) {
  Slot& told = program_.slots[static_cast<std::size_t>(slot_index)];
  told.dtype = dtype;
  const std::int64_t numel = told.bytes.value() / facts::bytes_of(dtype);
  const std::int64_t shards = numel == 0 ? 0 : model::elements(whole) / numel;
  const bool exact = shards > 0 && checked_multiply(shards, numel) == model::elements(whole);
  // FSDP2 cuts the first dimension; everybody else flattens first.
  using facts::Sharding;
  const Sharding sharding = job_.parallel.sharding;
  const bool by_rows = sharding == Sharding::fsdp || sharding == Sharding::hsdp ||
                       sharding == Sharding::shard_grad_op;
  if (!exact || (shards > 1 && (!by_rows || whole[0] % shards != 0))) {
    told.extent = {{numel}, 1};
    return slot_index;
  }
  told.extent = extent_of(whole);
  told.extent.sizes[0] /= shards;
  return slot_index;
}

void Assembler::allocate(std::vector<Event>& events, std::int32_t slot_index) {
  events.push_back({EventKind::allocate, slot_index});
}

void Assembler::free(std::vector<Event>& events, std::int32_t slot_index) {
  events.push_back({EventKind::free, slot_index});
}

void Assembler::communicate(std::vector<Event>& events, Collective kind, Bytes payload,
                            bool overlaps, std::string_view text, const Group& group) {
  if (group.ranks <= 1) return;
  Communication entry;
  entry.kind = kind;
  entry.payload = payload;
  entry.ranks = group.ranks;
  entry.ranks_per_node = group.ranks_per_node;
  entry.overlaps = overlaps;
  entry.name = name(text);
  program_.communication.push_back(entry);
  events.push_back(
      {EventKind::communicate, static_cast<std::int32_t>(program_.communication.size()) - 1});
}

void Assembler::work(std::vector<Event>& events, WorkKind kind, Bytes traffic,
                     std::string_view text) {
  Work entry;
  entry.kind = kind;
  entry.traffic = traffic;
  entry.name = name(text);
  program_.work.push_back(entry);
  events.push_back({EventKind::work, static_cast<std::int32_t>(program_.work.size()) - 1});
}

std::int64_t Assembler::micro_batches() const {
  return job_.train.gradient_accumulation.value_or(1);
}

// The loop's variables (`loss`, `outputs`) hold what the last micro-batch made until the step ends.
// A pipeline's schedule lets go of each micro-batch by itself.
bool Assembler::held_to_the_end() const {
  return job_.parallel.pipeline == 1 && program_.in_flight == 1;
}

// DDP and ZeRO-1 reduce with the last micro-batch only (no_sync); what shards gradients reduces
// each.
bool Assembler::reduces_each_micro_batch() const {
  return layout_.gradient_shards > 1;
}

}  // namespace steelyard::step
