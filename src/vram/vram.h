// The first header of the room: the program of a rank -> what its GPU holds, moment by moment.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/error.h"
#include "facts/allocator.h"
#include "facts/constants.h"
#include "facts/plan.h"
#include "step/program.h"

namespace steelyard::vram {

struct Request {
  const step::Program* program = nullptr;
  const facts::DeviceMemoryConstants* device = nullptr;
  // Of the card. PyTorch gives cached segments back when the card is full, so a nearly full card
  // reserves less than an endless one; unknown: nothing is ever given back.
  std::optional<Bytes> capacity;
  bool timeline = false;
  bool tensors = false;  // also name what is alive at the peak: replays twice
  // Play every micro-batch, also those that meet an allocator in a state seen before. The answer is
  // the same; tests compare the two.
  bool expand_all = false;
  // Set as soon as one of the replays runs out of memory; then all that share it stop, for who only
  // asks whether a job fits. Their answers are of what was played.
  std::atomic<bool>* stops = nullptr;
  facts::AllocatorHabits habits{};             // how the framework takes the card's memory
  std::optional<facts::AllocatorConf> conf{};  // of the caching allocator; none: its defaults
};

struct Answer {
  facts::RankMemory memory;
  std::vector<facts::Moment> timeline;      // empty unless asked for
  std::vector<facts::TensorGroup> tensors;  // alive at the peak, largest first
  Bytes workspaces;                         // allocated beside them, for ever
  std::int64_t played = 0;  // allocations: fewer than the program's where rounds were left out
};

// Replays the program through the caching allocator for two steps; later ones are like the second.
// A job that does not fit goes on with a larger card: the answer says what it would have needed.
[[nodiscard]] Answer replay(const Request& request);

// The same for several kinds of ranks, in their order; `request.program` is not read. The replays
// share nothing and run on as many threads as the host has cores.
[[nodiscard]] std::vector<Answer> replay_all(const Request& request,
                                             const std::vector<const step::Program*>& programs);

}  // namespace steelyard::vram
