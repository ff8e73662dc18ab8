#include "step/merge.h"

#include <algorithm>
#include <set>
#include <utility>

namespace steelyard::step {

namespace {

std::int32_t count_of(const auto& list) {
  return static_cast<std::int32_t>(list.size());
}

// "model.layers: addmm" of the policy is "reference model.layers: addmm" of another.
std::string labelled(const std::string& label, const std::string& text) {
  return label.empty() ? text : label + " " + text;
}

}  // namespace

std::int32_t chunks_of(const Program& program) {
  std::int32_t most = 0;
  for (const Pass& pass : program.step) {
    for (const Phase& phase : pass.phases) most = std::max(most, phase.chunk + 1);
  }
  return most;
}

Joined::Joined(Program& into, const Program& other, std::string label, std::int32_t chunks)
    : slots_(count_of(into.slots)),
      names_(count_of(into.names)),
      gradients_(count_of(into.gradients)),
      work_(count_of(into.work)),
      communication_(count_of(into.communication)),
      chunks_(chunks),
      label_(std::move(label)) {
  into.names.insert(into.names.end(), other.names.begin(), other.names.end());
  for (Slot slot : other.slots) {
    slot.name += names_;
    into.slots.push_back(slot);
  }
  for (Gradient gradient : other.gradients) {
    into.gradients.push_back({gradient.fresh + slots_, gradient.kept + slots_});
  }
  for (Work work : other.work) {
    work.name += names_;
    into.work.push_back(work);
  }
  for (Communication sent : other.communication) {
    sent.name += names_;
    into.communication.push_back(sent);
  }
}

Body Joined::body(const Body& body) const {
  Body moved = body;
  moved.layer = labelled(label_, body.layer);
  for (Event& event : moved.events) {
    switch (event.kind) {
      case EventKind::keep_gradient: event.index += gradients_; break;
      case EventKind::work: event.index += work_; break;
      case EventKind::communicate: event.index += communication_; break;
      default: event.index += slots_;
    }
  }
  return moved;
}

Phase Joined::phase(const Phase& phase) const {
  Phase moved = phase;
  moved.chunk += chunks_;
  moved.bodies.clear();
  for (const Body& each : phase.bodies) moved.bodies.push_back(body(each));
  return moved;
}

Pass Joined::pass(const Pass& pass) const {
  Pass moved = pass;
  moved.phases.clear();
  for (const Phase& each : pass.phases) moved.phases.push_back(phase(each));
  return moved;
}

Phase asked(const Phase& forward, PhaseKind kind) {
  Phase phase = forward;
  phase.kind = kind;
  std::set<std::int32_t> gone;
  for (const Body& body : forward.bodies) {
    for (const Event& event : body.events) {
      const bool ends = event.kind == EventKind::free || event.kind == EventKind::carry ||
                        event.kind == EventKind::release_shared;
      if (ends) gone.insert(event.index);
    }
  }
  std::vector<Body> after;
  for (const Body& body : forward.bodies) {
    Body end{.layer = body.layer, .repeat = body.repeat, .events = {}};
    for (const Event& event : body.events) {
      const bool begins = event.kind == EventKind::allocate || event.kind == EventKind::adopt ||
                          event.kind == EventKind::ensure;
      if (!begins || !gone.insert(event.index).second) continue;
      end.events.push_back({EventKind::free, event.index});
    }
    if (!end.events.empty()) after.push_back(std::move(end));
  }
  for (Body& body : after) phase.bodies.push_back(std::move(body));
  return phase;
}

std::vector<Body> parameters_of(const Program& program) {
  std::vector<Body> held;
  for (const Pass& pass : program.setup) {
    for (const Phase& phase : pass.phases) {
      for (const Body& body : phase.bodies) {
        Body only{.layer = body.layer, .repeat = body.repeat, .events = {}};
        for (const Event& event : body.events) {
          const bool memory = event.kind == EventKind::allocate || event.kind == EventKind::free;
          if (!memory) continue;
          const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
          if (slot.category == facts::VramCategory::parameters) only.events.push_back(event);
        }
        if (!only.events.empty()) held.push_back(std::move(only));
      }
    }
  }
  return held;
}

std::vector<Phase> forward_phases(const Program& program) {
  std::vector<Phase> phases;
  std::set<std::int32_t> seen;
  for (const Pass& pass : program.step) {
    for (const Phase& phase : pass.phases) {
      if (phase.kind != PhaseKind::forward || !seen.insert(phase.chunk).second) continue;
      phases.push_back(phase);
    }
  }
  return phases;
}

}  // namespace steelyard::step
