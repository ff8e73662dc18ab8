// Where a replay stands: everything that decides how its program goes on, as one number. Two
// moments of a pass with the same number go on alike.
#pragma once

#include <cstdint>
#include <vector>

#include "step/expand.h"
#include "step/program.h"
#include "vram/allocator.h"
#include "vram/homes.h"
#include "vram/live.h"

namespace steelyard::vram {

class Standing {
 public:
  Standing(const step::Program& program, const std::vector<Home>& homes);

  // Allocations of that micro-batch in flight are made or freed.
  void touch(std::int64_t micro_batch) { touched_[static_cast<std::size_t>(micro_batch)] = true; }
  // What lies where, and what is free. Micro-batches are told apart by their distance from the
  // oldest one in flight. Looks only at those that were touched since the last call.
  [[nodiscard]] std::uint64_t print(const std::vector<Live>& lives, const Allocator& allocator,
                                    const step::Progress& progress);

 private:
  [[nodiscard]] std::uint64_t kept(const std::vector<Live>& lives,
                                   const Allocator& allocator) const;
  void look_at(std::size_t micro_batch, const std::vector<Live>& lives, const Allocator& allocator);
  [[nodiscard]] std::uint64_t& of(std::size_t micro_batch, std::size_t chunk) {
    return prints_[micro_batch * chunks_ + chunk];
  }

  struct Row {  // the allocations of a slot, one after the other
    std::size_t first = 0, stride = 1, layers = 1, chunk = 0;
  };
  std::vector<Row> kept_;     // of slots that outlive micro-batches
  std::vector<Row> passing_;  // of the first micro-batch in flight; the next ones' lie behind it
  std::size_t in_flight_, chunks_ = 1, layers_ = 1;
  std::vector<bool> touched_;          // by micro-batch in flight
  std::vector<std::uint64_t> prints_;  // by micro-batch in flight and chunk
};

}  // namespace steelyard::vram
