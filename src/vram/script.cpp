#include "vram/script.h"

#include <utility>

#include "base/fingerprint.h"

namespace steelyard::vram {

using step::EventKind;

std::uint64_t Script::fingerprint() const {
  Fingerprint print;
  for (const Act& act : acts) {
    print.add(static_cast<std::int64_t>(act.kind) + (std::int64_t{act.variable} << 8) +
              (std::int64_t{act.kept} << 32));
    print.add(act.bytes);
  }
  return print.value();
}

void ScriptWriter::write(const step::Event& event) {
  switch (event.kind) {
    case EventKind::allocate: add(ActKind::allocate, event.index); break;
    case EventKind::release_shared:
    case EventKind::free: add(ActKind::free, event.index); break;
    case EventKind::adopt: add(ActKind::adopt, event.index); break;
    case EventKind::carry: add(ActKind::carry, event.index); break;
    case EventKind::ensure: add(ActKind::ensure, event.index); break;
    case EventKind::keep_gradient: {
      const step::Gradient& gradient = program_.gradients[static_cast<std::size_t>(event.index)];
      add(ActKind::keep_gradient, gradient.fresh);
      script_.acts.back().category = track(gradient.kept).category;
      script_.acts.back().kept = variable(gradient.kept);
      break;
    }
    case EventKind::release_cached: script_.rehearsable = false; break;  // changes every free block
    case EventKind::work:
    case EventKind::communicate: break;
  }
}

void ScriptWriter::add(ActKind kind, std::int32_t slot) {
  const Track& its = track(slot);
  script_.acts.push_back({kind, its.stream, its.category, variable(slot), 0, its.bytes.value()});
}

std::int32_t ScriptWriter::variable(std::int32_t slot) {
  std::int32_t& its = variables_[static_cast<std::size_t>(slot)];
  if (its != 0) return its;
  its = static_cast<std::int32_t>(script_.slots.size());
  script_.slots.push_back(slot);
  if (track(slot).managed || track(slot).recorded) script_.rehearsable = false;
  return its;
}

Script ScriptWriter::script_of(const std::vector<step::Event>& events, bool first_layer) {
  script_ = {};
  script_.acts.reserve(events.size());
  script_.slots.push_back(-1);
  for (const step::Event& event : events) {
    if (event.kind == EventKind::release_shared && !first_layer) continue;
    write(event);
  }
  for (const std::int32_t slot : script_.slots) {
    if (slot >= 0) variables_[static_cast<std::size_t>(slot)] = 0;
  }
  return std::move(script_);
}

}  // namespace steelyard::vram
