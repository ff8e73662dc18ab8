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
  notes.push_back(
      {fmt::format("system: {} for the kernel and daemons.", to_text(bytes[RamCategory::system])),
       Provenance::assumed, "an idle server"});
  notes.push_back(
      {fmt::format("framework: {} x {} (interpreter, framework{}).", ranks_text(node.ranks),
                   to_text(node.process), node.tensors ? "" : ", CUDA host side"),
       node.process_from, node.process_source});
  if (node.libraries > Bytes()) {
    notes.push_back({fmt::format("framework: programs and libraries, mapped once, {}.",
                                 to_text(node.libraries)),
                     Provenance::measured, "the framework's profile"});
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
        {fmt::format("page cache: with {} free, epochs after the first would not read storage.",
                     to_text(*dataset)),
         Provenance::derived, "LRU over a dataset that fits is never evicted"});
  } else {
    notes.push_back(
        {"page cache: the dataset's size is not given (data.samples, data.bytes_per_sample), so "
         "what "
         "the page cache could hold of it is left out.",
         Provenance::unknown, ""});
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
      {"No accelerator: what would lie on a card at the peak of a step lies in the ranks' memory.",
       Provenance::derived, "the step's own program, replayed"});
}

// Models that come to the cards when they are asked: page-locked copies, tensor by tensor.
void add_waiting(const Node& node, facts::RamBytes& bytes, Notes& notes, bool say) {
  const Bytes waiting = node.states.waiting_bytes;
  if (waiting == Bytes()) return;
  const PinnedTensors frozen{.trainable = false, .frozen = true, .parts = parts_of_a_weight(node)};
  const Bytes held =
      node.job.offload.pin_memory ? waiting * rounding_of(node.states.weights, frozen) : waiting;
  bytes[RamCategory::parameters] += held * node.ranks;
  if (!say) return;
  notes.push_back({fmt::format("parameters: {} of models that wait for their turn, on {}.",
                               to_text(held), each_rank(node.ranks)),
                   Provenance::derived,
                   "offloaded models are page-locked tensor by tensor (CachingHostAllocator.h)"});
}

// What the step leaves with the host, each rank for itself.
void say_what_waits(const Node& node, const Request& request, Notes& notes) {
  if (request.paged_states > Bytes()) {
    notes.push_back(
        {fmt::format("optimizer: {} of each rank's paged states have no room on its GPU.",
                     to_text(request.paged_states)),
         Provenance::derived, "bitsandbytes: managed memory that a full card leaves"});
  }
  if (request.offloaded_activations > Bytes()) {
    notes.push_back({fmt::format("activations: {} x {} wait between forward and backward.",
                                 ranks_text(node.ranks), to_text(request.offloaded_activations)),
                     Provenance::derived, "the step's own program: what its offload copies away"});
  }
  if (node.states.embedding_host_bytes > Bytes()) {
    notes.push_back({fmt::format("embedding_tables: {} x {}, rows and their optimizer states.",
                                 ranks_text(node.ranks), to_text(node.states.embedding_host_bytes)),
                     Provenance::derived, "tables that the job places in host memory"});
  }
}

// Models beside the trained one that compute on the host's processors: a copy in every rank.
void add_companions(const Node& node, facts::RamBytes& bytes) {
  bytes[RamCategory::parameters] += node.states.companion_host_bytes * node.ranks;
}

void note_companions(const Node& node, Notes& notes) {
  if (node.states.companion_host_bytes == Bytes()) return;
  notes.push_back({fmt::format("parameters: {} of companions on the CPU, and {} while they compute "
                               "(activations), in {}.",
                               to_text(node.states.companion_host_bytes),
                               to_text(node.states.companion_host_work), each_rank(node.ranks)),
                   Provenance::derived,
                   "models with held = \"cpu\", made and computed in every rank"});
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
  STEELYARD_TRY(offloaded, offloaded_states(node, plan.rules));

  phase(RamPhase::startup) = startup(node, plan.rules);

  // Parameters that stay in host memory are filled while the source is still there.
  facts::RamBytes& load = phase(RamPhase::load) = phase(RamPhase::startup);
  load[RamCategory::parameters] = offloaded.parameters;
  load[RamCategory::embedding_tables] = request.states->embedding_host_bytes * node.ranks;
  load[RamCategory::model_load] = load_transient(node, plan.rules);
  if (node.tensors) load[RamCategory::parameters] += node.states.parameter_bytes * node.ranks;

  add_waiting(node, load, plan.rules, true);
  add_companions(node, load);
  note_companions(node, plan.rules);

  facts::RamBytes& steady = phase(RamPhase::steady) = phase(RamPhase::startup);
  steady[RamCategory::parameters] = offloaded.parameters;
  add_waiting(node, steady, plan.rules, false);
  add_companions(node, steady);
  steady[RamCategory::embedding_tables] = load[RamCategory::embedding_tables];
  steady[RamCategory::gradients] = offloaded.gradients;
  steady[RamCategory::optimizer] = offloaded.optimizer + request.paged_states * node.ranks;
  const Bytes computing = node.states.companion_host_work * node.ranks;
  steady[RamCategory::activations] = request.offloaded_activations * node.ranks + computing;
  say_what_waits(node, request, plan.rules);
  steady[RamCategory::framework] += node.steps * node.ranks;
  add_tensors(node, steady, plan.rules);
  STEELYARD_CHECK(add_data_path(node, request.sample_bytes, steady, plan.rules));

  facts::RamBytes& checkpoint = phase(RamPhase::checkpoint) = steady;
  // Temporaries are gone between steps; smaller blocks than these stay with malloc.
  if (node.tensors) {
    const Bytes gone = (*node.tensors)[facts::VramCategory::temporaries] * node.ranks;
    checkpoint[RamCategory::activations] -= gone;
  }
  checkpoint[RamCategory::activations] -= computing;
  checkpoint[RamCategory::checkpoint_staging] = checkpoint_staging(node, plan.rules);

  plan.checkpoint_bytes = checkpoint_size(node);
  find_peak(plan);
  plan.page_cache_wanted = page_cache_wanted(node, plan.rules);
  plan.capacity = node.machine.host.memory;
  return plan;
}

}  // namespace steelyard::ram
