#include "vram/standing.h"

#include <algorithm>

#include "base/fingerprint.h"

namespace steelyard::vram {
namespace {

void add(Fingerprint& print, const Live& live, std::int64_t name, const Allocator& allocator) {
  if (!live.alive) return;
  print.add(name);
  print.add(allocator.address_of(live.block));
}

using step::EventKind;

std::size_t slot_of(const step::Program& program, const step::Event& event) {
  const bool gradient = event.kind == EventKind::keep_gradient;
  return static_cast<std::size_t>(
      gradient ? program.gradients[static_cast<std::size_t>(event.index)].kept : event.index);
}

bool names_slot(const step::Event& event) {
  return event.kind != EventKind::work && event.kind != EventKind::communicate;
}

// Of the slots of passes that repeat, those that may be alive when a body ends: nothing else
// changes from turn to turn.
std::vector<bool> between_turns(const step::Program& program) {
  std::vector<bool> between(program.slots.size(), false);
  std::vector<bool> alive = between;
  const auto look_at = [&](const step::Body& body) {
    for (const step::Event& event : body.events) {
      if (!names_slot(event)) continue;
      const bool ends = event.kind == EventKind::free || event.kind == EventKind::carry;
      alive[slot_of(program, event)] = !ends;  // release_shared: by one of the layers only
    }
    for (const step::Event& event : body.events) {
      if (names_slot(event) && alive[slot_of(program, event)]) {
        between[slot_of(program, event)] = true;
      }
    }
  };
  for (const step::Pass& pass : program.step) {
    if (pass.repeat == 1) continue;
    for (const step::Phase& phase : pass.phases) {
      for (const step::Body& body : phase.bodies) look_at(body);
    }
  }
  return between;
}

}  // namespace

Standing::Standing(const step::Program& program, const std::vector<Home>& homes)
    : in_flight_(static_cast<std::size_t>(program.in_flight)), touched_(in_flight_, true) {
  const std::vector<bool> between = between_turns(program);
  for (std::size_t slot = 0; slot < homes.size(); ++slot) {
    const Row row{homes[slot].first, homes[slot].stride,
                  static_cast<std::size_t>(homes[slot].layers),
                  static_cast<std::size_t>(homes[slot].chunk)};
    chunks_ = std::max(chunks_, row.chunk + 1);
    layers_ = std::max(layers_, row.layers);
    // What stays for the step grows from turn to turn, and with it what the device has given.
    if (!between[slot] || program.slots[slot].stays_for_the_step()) continue;
    (program.slots[slot].outlives_micro_batch ? kept_ : passing_).push_back(row);
  }
  prints_.resize(in_flight_ * chunks_);
}

std::uint64_t Standing::kept(const std::vector<Live>& lives, const Allocator& allocator) const {
  Fingerprint print;
  for (std::size_t layer = 0; layer < layers_; ++layer) {  // as they lie
    for (const Row& row : kept_) {
      if (layer >= row.layers) continue;
      const std::size_t at = row.first + layer * row.stride;
      add(print, lives[at], static_cast<std::int64_t>(at), allocator);
    }
  }
  return print.value();
}

void Standing::look_at(std::size_t micro_batch, const std::vector<Live>& lives,
                       const Allocator& allocator) {
  std::vector<Fingerprint> prints(chunks_);
  for (std::size_t layer = 0; layer < layers_; ++layer) {
    for (const Row& row : passing_) {
      if (layer >= row.layers) continue;
      const std::size_t at = row.first + layer * row.stride;  // of the first micro-batch
      add(prints[row.chunk], lives[at + micro_batch * row.layers * row.stride],
          static_cast<std::int64_t>(at), allocator);
    }
  }
  for (std::size_t chunk = 0; chunk < chunks_; ++chunk) {
    of(micro_batch, chunk) = prints[chunk].value();
  }
}

std::uint64_t Standing::print(const std::vector<Live>& lives, const Allocator& allocator,
                              const step::Progress& progress) {
  for (std::size_t micro_batch = 0; micro_batch < in_flight_; ++micro_batch) {
    if (touched_[micro_batch]) look_at(micro_batch, lives, allocator);
    touched_[micro_batch] = false;
  }
  Fingerprint print;
  print.add(static_cast<std::int64_t>(allocator.fingerprint()));
  print.add(static_cast<std::int64_t>(kept(lives, allocator)));
  for (std::size_t chunk = 0; chunk < chunks_; ++chunk) {
    const auto oldest = static_cast<std::size_t>(progress.oldest(static_cast<std::int32_t>(chunk)));
    for (std::size_t i = 0; i < in_flight_; ++i) {
      print.add(static_cast<std::int64_t>(of((oldest + i) % in_flight_, chunk)));
    }
  }
  return print.value();
}

}  // namespace steelyard::vram
