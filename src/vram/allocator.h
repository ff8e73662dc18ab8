// What a replay asks of a device allocator, whichever framework's it is.
#pragma once

#include <cstdint>
#include <optional>

#include "base/quantity.h"

namespace steelyard::vram {

// Identifies one live allocation; 0 is "none" (a request of 0 bytes).
using BlockId = std::int64_t;

class Allocator {
 public:
  Allocator() = default;
  Allocator(const Allocator&) = delete;
  Allocator& operator=(const Allocator&) = delete;
  virtual ~Allocator() = default;

  // Nothing where the framework raises its out-of-memory error, after releasing what it can.
  [[nodiscard]] virtual std::optional<BlockId> try_allocate(Bytes requested, int stream) = 0;
  // After blocks that waited for another stream were freed too: releases what it can once more and
  // asks the device alone.
  [[nodiscard]] virtual std::optional<BlockId> try_device(Bytes requested, int stream) = 0;
  virtual void free(BlockId block) = 0;  // `block` is live or 0
  // A block used on another stream: no longer allocated, but no request gets it before `free`.
  virtual void retire(BlockId block) = 0;
  // Wholly free segments go back to the device, where the framework can do that.
  virtual void empty_cache() = 0;
  // As if the device had room for a further request of that size, and this were it: for telling
  // how much a job would have needed. `spare`: room for so much, where that is more.
  [[nodiscard]] virtual BlockId allocate_beyond(Bytes requested, int stream, Bytes spare) = 0;

  [[nodiscard]] Bytes allocated() const { return Bytes(totals_.allocated); }  // of live blocks
  [[nodiscard]] Bytes reserved() const { return Bytes(totals_.reserved); }  // taken from the device
  [[nodiscard]] virtual Bytes size_of(BlockId block) const = 0;             // unsplit tail included
  [[nodiscard]] virtual std::int64_t address_of(BlockId block) const = 0;
  // Two moments with the same live blocks at the same addresses and the same fingerprint treat
  // every further request alike (but for a collision of 64-bit hashes).
  [[nodiscard]] virtual std::uint64_t fingerprint() const = 0;

 protected:
  struct Totals {
    std::int64_t allocated = 0;
    std::int64_t reserved = 0;
  };
  Totals totals_;  // here, since a replay looks at them after every request
};

}  // namespace steelyard::vram
