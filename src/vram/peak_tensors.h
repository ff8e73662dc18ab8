// Follows every allocation of a replay from birth to death, and remembers those that are alive at
// one moment: the tensors that make the peak.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "facts/plan.h"
#include "step/program.h"

namespace steelyard::vram {

// A moment: which layer of which body, and what ran.
struct Place {
  const step::Phase* phase = nullptr;  // none: setup
  const step::Body* body = nullptr;
  std::int64_t layer = 0;
  std::int32_t name = -1;  // Program::names
};

[[nodiscard]] facts::PeakAt described(const step::Program& program, const Place& place);
// "model.layers.3" of a body that repeats.
[[nodiscard]] std::string layer_text(const step::Body& body, std::int64_t layer);

class PeakTensors {
 public:
  // Where an allocation stands in the replay's list; kCarried: handed from one layer to the next.
  using Index = std::size_t;
  static constexpr Index kCarried = static_cast<Index>(-1);

  explicit PeakTensors(const step::Program& program) : program_(program) {}

  void born(Index at, std::int32_t slot, const Place& place);
  void moved(Index from, Index to);
  void died(Index at, const Place& place);
  // The moment: what is alive now. Called once.
  void remember(Index at, Bytes bytes, facts::VramCategory category);
  [[nodiscard]] bool any() const { return !tensors_.empty(); }

  // Alike ones together, largest first.
  [[nodiscard]] std::vector<facts::TensorGroup> groups() const;

 private:
  struct Life {
    std::int32_t slot = -1;
    Place born;
    std::int32_t tensor = -1;  // index into tensors_
  };
  struct Tensor {
    std::int32_t slot = -1;
    Bytes bytes;
    facts::VramCategory category = facts::VramCategory::temporaries;
    Place born;
    std::optional<Place> freed;
  };

  const step::Program& program_;
  std::unordered_map<Index, Life> lives_;
  std::vector<Tensor> tensors_;
};

}  // namespace steelyard::vram
