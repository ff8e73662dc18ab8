#include "vram/homes.h"

#include <algorithm>
#include <map>

namespace steelyard::vram {
namespace {

using step::EventKind;

// Slots with as many allocations share a stretch of the list.
std::size_t allocations_of(const step::Program& program, const Home& home, const step::Slot& slot) {
  const std::int64_t ring = slot.stays_for_the_step()   ? program.micro_batches
                            : slot.outlives_micro_batch ? 1
                                                        : program.in_flight;
  return static_cast<std::size_t>(checked_multiply(home.layers, ring));
}

void add_layers(const step::Program& program, const step::Phase& phase, const step::Body& body,
                std::vector<Home>& homes) {
  for (const step::Event& event : body.events) {
    if (event.kind == EventKind::work || event.kind == EventKind::communicate) continue;
    if (event.kind == EventKind::release_cached) continue;
    const bool gradient = event.kind == EventKind::keep_gradient;
    const auto slot = static_cast<std::size_t>(
        gradient ? program.gradients[static_cast<std::size_t>(event.index)].kept : event.index);
    Home& home = homes[slot];
    home.layers = std::max(home.layers, program.slots[slot].shared ? 1 : body.repeat);
    home.chunk = phase.chunk;
  }
}

}  // namespace

std::vector<Home> homes_of(const step::Program& program) {
  std::vector<Home> homes(program.slots.size());
  for (const auto* passes : {&program.setup, &program.first_optimizer, &program.step}) {
    for (const step::Pass& pass : *passes) {
      for (const step::Phase& phase : pass.phases) {
        for (const step::Body& body : phase.bodies) add_layers(program, phase, body, homes);
      }
    }
  }
  std::map<std::size_t, std::size_t> slots;  // by how many allocations they have
  for (std::size_t i = 0; i < homes.size(); ++i) {
    homes[i].first = slots[allocations_of(program, homes[i], program.slots[i])]++;
  }
  std::map<std::size_t, std::size_t> begin;
  std::size_t count = 0;
  for (const auto& [each, many] : slots) {
    begin[each] = count;
    count += each * many;
  }
  for (std::size_t i = 0; i < homes.size(); ++i) {
    const std::size_t its = allocations_of(program, homes[i], program.slots[i]);
    homes[i].first += begin[its];
    homes[i].stride = slots[its];
  }
  return homes;
}

std::vector<Track> tracks_of(const step::Program& program, const std::vector<Home>& homes) {
  std::vector<Track> tracks;
  tracks.reserve(homes.size());
  for (std::size_t i = 0; i < homes.size(); ++i) {
    const step::Slot& slot = program.slots[i];
    tracks.push_back({homes[i].first, homes[i].stride, slot.bytes, slot.name, slot.category,
                      slot.stream, step::naming_of(slot), slot.managed, slot.recorded});
  }
  return tracks;
}

std::size_t allocations_in(const step::Program& program, const std::vector<Home>& homes) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < homes.size(); ++i) {
    count += allocations_of(program, homes[i], program.slots[i]);
  }
  return count;
}

std::vector<Track> resized(std::vector<Track> tracks, const std::vector<Bytes>& slots) {
  for (std::size_t i = 0; i < tracks.size(); ++i) tracks[i].bytes = slots[i];
  return tracks;
}

}  // namespace steelyard::vram
