// The phases of a run, put together from the rules of this room (docs/model/host-memory.md).
#include <fmt/format.h>

#include "base/format.h"
#include "ram/loader_alone.h"
#include "ram/loaders.h"
#include "ram/node.h"
#include "ram/offload.h"
#include "ram/pinned.h"
#include "ram/ram.h"
#include "ram/staging.h"

namespace steelyard::ram {
namespace {

using facts::RamCategory;
using facts::RamPhase;

facts::RamBytes startup(const Node& node, Notes& notes) {
  facts::RamBytes bytes;
  bytes[RamCategory::system] = node.constants.system;
  bytes[RamCategory::framework] = node.process * node.ranks + node.libraries;
  notes.push_back(fmt::format("framework: {} x {} (interpreter, framework{}).",
                              ranks_text(node.ranks), to_text(node.process),
                              node.tensors ? "" : ", CUDA host side"));
  if (node.libraries > Bytes()) {
    notes.push_back(fmt::format("framework: programs and libraries, mapped once, {}.",
                                to_text(node.libraries)));
  }
  return bytes;
}

Bytes page_cache_wanted(const Node& node, Notes& notes) {
  Bytes wanted;
  if (node.job.checkpoint.load != facts::CheckpointLoad::meta) wanted += model_file(node);
  const facts::DataKeys& data = node.job.data;
  if (data.cache != facts::DataCache::page || data.kind == facts::DataKind::synthetic)
    return wanted;
  if (const std::optional<Bytes> dataset = dataset_on_storage(data)) {
    wanted += *dataset;
    notes.push_back(
        fmt::format("page cache: with {} free, epochs after the first would not read storage.",
                    to_text(*dataset)));
  } else {
    notes.push_back(
        "page cache: the dataset's size is not given (data.samples, data.bytes_per_sample), so "
        "what "
        "the page cache could hold of it is left out.");
  }
  return wanted;
}

// Tensors of ranks that compute on the host's processors.
void add_tensors(const Node& node, facts::RamBytes& bytes, Notes& notes) {
  if (!node.tensors) return;
  const auto add = [&](RamCategory to, facts::VramCategory from) {
    bytes[to] += (*node.tensors)[from] * node.ranks;
  };
  add(RamCategory::parameters, facts::VramCategory::parameters);
  add(RamCategory::gradients, facts::VramCategory::gradients);
  add(RamCategory::optimizer, facts::VramCategory::optimizer);
  add(RamCategory::activations, facts::VramCategory::activations);
  add(RamCategory::activations, facts::VramCategory::temporaries);
  add(RamCategory::communication, facts::VramCategory::communication);
  add(RamCategory::prefetch, facts::VramCategory::batch);
  notes.push_back(
      "No accelerator: what would lie on a card at the peak of a step lies in the ranks' memory.");
}

// Models that come to the cards when they are asked: page-locked copies, tensor by tensor.
void add_waiting(const Node& node, facts::RamBytes& bytes, Notes& notes) {
  const Bytes waiting = node.states.waiting_bytes;
  if (waiting == Bytes()) return;
  const PinnedTensors frozen{.trainable = false, .frozen = true, .parts = parts_of_a_weight(node)};
  const Bytes held =
      node.job.offload.pin_memory ? waiting * rounding_of(node.states.weights, frozen) : waiting;
  bytes[RamCategory::parameters] += held * node.ranks;
  const std::string note =
      fmt::format("parameters: {} of models that wait for their turn, on each of {}.",
                  to_text(held), ranks_text(node.ranks));
  if (notes.empty() || notes.back() != note) notes.push_back(note);
}

// Models beside the trained one that compute on the host's processors: a copy in every rank.
void add_companions(const Node& node, facts::RamBytes& bytes) {
  bytes[RamCategory::parameters] += node.states.companion_host_bytes * node.ranks;
}

void note_companions(const Node& node, Notes& notes) {
  if (node.states.companion_host_bytes == Bytes()) return;
  notes.push_back(fmt::format(
      "parameters: {} of companions on the CPU, and {} while they compute (activations), in "
      "each of {}.",
      to_text(node.states.companion_host_bytes), to_text(node.states.companion_host_work),
      ranks_text(node.ranks)));
}

void find_peak(facts::RamPlan& plan) {
  for (std::size_t i = 0; i < facts::kRamPhases; ++i) {
    const Bytes total = plan.phases[i].total();
    if (i == 0 || total > plan.peak) {
      plan.peak = total;
      plan.peak_phase = static_cast<RamPhase>(i);
    }
  }
}

}  // namespace

Result<facts::RamPlan> host_memory(const Request& request) {
  STEELYARD_TRY(node, node_of(request));
  if (node.constants.loader && node.constants.loader->alone) {
    return memory_of_loader_alone(node, request.sample_bytes);
  }
  facts::RamPlan plan;
  const auto phase = [&plan](RamPhase which) -> facts::RamBytes& {
    return plan.phases[static_cast<std::size_t>(which)];
  };
  STEELYARD_TRY(offloaded, offloaded_states(node, plan.notes));

  phase(RamPhase::startup) = startup(node, plan.notes);

  // Parameters that stay in host memory are filled while the source is still there.
  facts::RamBytes& load = phase(RamPhase::load) = phase(RamPhase::startup);
  load[RamCategory::parameters] = offloaded.parameters;
  load[RamCategory::embedding_tables] = request.states->embedding_host_bytes * node.ranks;
  load[RamCategory::model_load] = load_transient(node, plan.notes);
  if (node.tensors) load[RamCategory::parameters] += node.states.parameter_bytes * node.ranks;

  add_waiting(node, load, plan.notes);
  add_companions(node, load);
  note_companions(node, plan.notes);

  facts::RamBytes& steady = phase(RamPhase::steady) = phase(RamPhase::startup);
  steady[RamCategory::parameters] = offloaded.parameters;
  add_waiting(node, steady, plan.notes);
  add_companions(node, steady);
  steady[RamCategory::embedding_tables] = load[RamCategory::embedding_tables];
  steady[RamCategory::gradients] = offloaded.gradients;
  steady[RamCategory::optimizer] = offloaded.optimizer + request.paged_states * node.ranks;
  if (request.paged_states > Bytes()) {
    plan.notes.push_back(
        fmt::format("optimizer: {} of each rank's paged states have no room on its GPU.",
                    to_text(request.paged_states)));
  }
  const Bytes computing = node.states.companion_host_work * node.ranks;
  steady[RamCategory::activations] = request.offloaded_activations * node.ranks + computing;
  steady[RamCategory::framework] += node.steps * node.ranks;
  add_tensors(node, steady, plan.notes);
  STEELYARD_CHECK(add_data_path(node, request.sample_bytes, steady, plan.notes));

  facts::RamBytes& checkpoint = phase(RamPhase::checkpoint) = steady;
  // Temporaries are gone between steps; smaller blocks than these stay with malloc.
  if (node.tensors) {
    const Bytes gone = (*node.tensors)[facts::VramCategory::temporaries] * node.ranks;
    checkpoint[RamCategory::activations] -= gone;
  }
  checkpoint[RamCategory::activations] -= computing;
  checkpoint[RamCategory::checkpoint_staging] = checkpoint_staging(node, plan.notes);

  plan.checkpoint_bytes = checkpoint_size(node);
  find_peak(plan);
  plan.page_cache_wanted = page_cache_wanted(node, plan.notes);
  plan.capacity = node.machine.host.memory;
  return plan;
}

}  // namespace steelyard::ram
