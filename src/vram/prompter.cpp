#include "vram/prompter.h"

#include <algorithm>
#include <utility>

#include "vram/rehearsal.h"

namespace steelyard::vram {

using step::EventKind;

const Prompter::Known& Prompter::known(const step::Body& body) {
  const auto [entry, fresh] = known_.try_emplace(&body);
  Known& its = entry->second;
  if (!fresh) return its;
  for (const step::Event& event : body.events) {
    if (event.kind == EventKind::communicate) continue;
    if (event.kind == EventKind::work) {
      const step::Work& work = program_.work[static_cast<std::size_t>(event.index)];
      if (its.multiplies || work.kind != step::WorkKind::gemm) continue;
      its.multiplies = true;
    }
    its.events.push_back(event);
  }
  // A few events cost no more to play than to recall.
  constexpr std::size_t kFewEvents = 24;
  if (blocks_ == nullptr || its.events.size() < kFewEvents) return its;
  its.shares = std::any_of(its.events.begin(), its.events.end(), [](const step::Event& event) {
    return event.kind == EventKind::release_shared;
  });
  if (its.shares) its.first = layer_of(its.events, true);
  its.others = layer_of(its.events, false);
  return its;
}

Prompter::Layer Prompter::layer_of(const std::vector<step::Event>& events, bool first) {
  Layer layer;
  layer.script = writer_.script_of(events, first);
  if (layer.script.rehearsable) layer.tree = &experience_.tree_of(layer.script);
  return layer;
}

const Outcome* Prompter::outcome(const Layer& layer, const Players& players) {
  if (blocks_ == nullptr || layer.tree == nullptr || !layer.tree->worthwhile()) return nullptr;
  Tree& tree = *layer.tree;
  const auto recalled = [&] {
    Witness witness(*blocks_, players, anchors_);
    return recall(tree, witness);
  };
  const Recalled before = recalled();
  ++(before.unknown ? tree.misses : tree.hits);
  if (!before.unknown) return before.outcome;
  {
    Witness witness(*blocks_, players, anchors_);
    Rehearsal(tree, witness, *blocks_).run();
  }
  return recalled().outcome;
}

}  // namespace steelyard::vram
