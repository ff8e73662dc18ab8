#include "vram/script.h"

#include <unordered_map>

#include "base/fingerprint.h"

namespace steelyard::vram {
namespace {

using step::EventKind;

class Writer {
 public:
  Writer(const step::Program& program, const std::vector<Track>& tracks)
      : program_(program), tracks_(tracks) {
    script_.slots.push_back(-1);
  }

  void write(const step::Event& event) {
    switch (event.kind) {
      case EventKind::allocate: add(ActKind::allocate, event.index); break;
      case EventKind::release_shared:
      case EventKind::free: add(ActKind::free, event.index); break;
      case EventKind::adopt: add(ActKind::adopt, event.index); break;
      case EventKind::carry: add(ActKind::carry, event.index); break;
      case EventKind::ensure: add(ActKind::ensure, event.index); break;
      case EventKind::keep_gradient: {
        const step::Gradient& gradient =
            program_.gradients[static_cast<std::size_t>(event.index)];
        add(ActKind::keep_gradient, gradient.fresh);
        script_.acts.back().category = track(gradient.kept).category;
        script_.acts.back().kept = variable(gradient.kept);
        break;
      }
      case EventKind::work:
      case EventKind::communicate: break;
    }
  }

  [[nodiscard]] Script script() { return std::move(script_); }

 private:
  [[nodiscard]] const Track& track(std::int32_t slot) const {
    return tracks_[static_cast<std::size_t>(slot)];
  }
  [[nodiscard]] std::int32_t variable(std::int32_t slot) {
    const auto next = static_cast<std::int32_t>(script_.slots.size());
    const auto [known, fresh] = variables_.try_emplace(slot, next);
    if (fresh) script_.slots.push_back(slot);
    const Track& its = track(slot);
    if (its.managed || its.recorded) script_.rehearsable = false;
    return known->second;
  }
  void add(ActKind kind, std::int32_t slot) {
    const Track& its = track(slot);
    script_.acts.push_back({kind, its.stream, its.category, variable(slot), 0, its.bytes.value()});
  }

  const step::Program& program_;
  const std::vector<Track>& tracks_;
  std::unordered_map<std::int32_t, std::int32_t> variables_;  // by slot
  Script script_;
};

}  // namespace

std::uint64_t Script::fingerprint() const {
  Fingerprint print;
  for (const Act& act : acts) {
    print.add(static_cast<std::int64_t>(act.kind));
    print.add(static_cast<std::int64_t>(act.stream));
    print.add(static_cast<std::int64_t>(act.category));
    print.add(act.variable);
    print.add(act.kept);
    print.add(act.bytes);
  }
  return print.value();
}

Script script_of(const step::Program& program, const std::vector<Track>& tracks,
                 const std::vector<step::Event>& events, bool first_layer) {
  Writer writer(program, tracks);
  for (const step::Event& event : events) {
    if (event.kind == EventKind::release_shared && !first_layer) continue;
    writer.write(event);
  }
  return writer.script();
}

}  // namespace steelyard::vram
