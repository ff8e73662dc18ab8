// Knows the bodies of a program by heart: says what comes of a layer that went the same way before,
// so that a replay need not play it (experience.h).
#pragma once

#include <unordered_map>
#include <vector>

#include "step/program.h"
#include "vram/experience.h"
#include "vram/homes.h"
#include "vram/script.h"

namespace steelyard::vram {

class Prompter {
 public:
  // `blocks`: of the allocator; null where nothing can be recalled.
  Prompter(const step::Program& program, const std::vector<Track>& tracks, Experience& experience,
           CachingAllocator::Implementation* blocks)
      : program_(program),
        tracks_(tracks),
        experience_(experience),
        blocks_(blocks),
        writer_(program, tracks) {}

  struct Layer {
    Script script;
    Tree* tree = nullptr;  // none: to be played
  };
  struct Known {                      // of a body
    std::vector<step::Event> events;  // that concern memory, and the first matrix product
    bool multiplies = false;
    bool shares = false;  // its first layer differs from the others
    Layer first, others;  // where it does not, all are others
    [[nodiscard]] const Layer& layer(const step::Instance& instance) const {
      return shares && instance.layer() == 0 ? first : others;
    }
  };
  [[nodiscard]] const Known& known(const step::Body& body);

  // What comes of the layer; null: it is to be played.
  [[nodiscard]] const Outcome* outcome(const Layer& layer, const Players& players);
  // Brings about what was said last.
  void apply(const Outcome& outcome, const Players& players) {
    stagehand_.apply(outcome, anchors_, players, *blocks_);
  }
  void forget() { blocks_ = nullptr; }  // from now on everything is played

 private:
  [[nodiscard]] Layer layer_of(const std::vector<step::Event>& events, bool first);

  const step::Program& program_;
  const std::vector<Track>& tracks_;
  Experience& experience_;
  CachingAllocator::Implementation* blocks_;
  ScriptWriter writer_;
  std::unordered_map<const step::Body*, Known> known_;
  Anchors anchors_;
  Stagehand stagehand_;
};

}  // namespace steelyard::vram
