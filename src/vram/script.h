// What one layer's body asks of the allocator, apart from the program it stands in: its slots are
// variables, numbered as they appear. Bodies that ask the same have equal scripts.
#pragma once

#include <cstdint>
#include <vector>

#include "facts/plan.h"
#include "step/program.h"
#include "vram/homes.h"

namespace steelyard::vram {

// As the kinds of events that they come from (step/program.h).
enum class ActKind : std::uint8_t { allocate, free, adopt, carry, ensure, keep_gradient };

struct Act {
  ActKind kind = ActKind::allocate;
  step::Stream stream = step::Stream::compute;
  facts::VramCategory category = facts::VramCategory::temporaries;
  std::int32_t variable = 0;
  std::int32_t kept = 0;   // keep_gradient: the variable that takes it over; `category` is its
  std::int64_t bytes = 0;  // as requested

  friend bool operator==(const Act&, const Act&) = default;
};

struct Script {
  static constexpr std::int32_t kCarried = 0;  // the tensor between two layers

  std::vector<Act> acts;
  std::vector<std::int32_t> slots;  // by variable; of kCarried: -1
  bool rehearsable = true;  // no memory outside of the allocator, none that waits for streams

  [[nodiscard]] std::uint64_t fingerprint() const;
};

class ScriptWriter {
 public:
  ScriptWriter(const step::Program& program, const std::vector<Track>& tracks)
      : program_(program), tracks_(tracks), variables_(tracks.size(), 0) {}

  // Of the first layer, or of the others: these leave what all layers share.
  [[nodiscard]] Script script_of(const std::vector<step::Event>& events, bool first_layer);

 private:
  void write(const step::Event& event);
  void add(ActKind kind, std::int32_t slot);
  [[nodiscard]] std::int32_t variable(std::int32_t slot);
  [[nodiscard]] const Track& track(std::int32_t slot) const {
    return tracks_[static_cast<std::size_t>(slot)];
  }

  const step::Program& program_;
  const std::vector<Track>& tracks_;
  std::vector<std::int32_t> variables_;  // by slot; 0: has none
  Script script_;
};

}  // namespace steelyard::vram
