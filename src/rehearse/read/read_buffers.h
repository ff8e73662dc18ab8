// The buffers that records are read into: a fixed number of equal slots, and for a record that is
// larger than a slot a mapping of its own, whose sum is bounded too.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "rehearse/bounded_queue.h"
#include "rehearse/dataset.h"
#include "rehearse/ledger.h"

namespace steelyard::rehearse {

// Storage wants direct reads to begin and end at blocks (4096 is a multiple of all that are in
// use).
constexpr std::uint64_t kBlock = 4096;

// How the slots are cut for a data set.
struct SlotPlan {
  std::size_t count = 0;
  std::size_t bytes = 0;        // of a slot: 98 of 100 records fit
  std::size_t largest = 0;      // that the largest record needs
  std::size_t large_bytes = 0;  // that larger ones may hold together
};
[[nodiscard]] SlotPlan plan_slots(const Dataset& dataset, std::size_t count, bool direct);

// A record on its way from storage to a worker.
struct ReadItem {
  std::uint64_t position = 0;  // in the order
  std::uint64_t record = 0;
  std::size_t slot = 0;
  std::uint8_t* buffer = nullptr;  // the slot, or `large`
  std::uint64_t from = 0;          // offset in the file where reading begins
  std::size_t wanted = 0;          // bytes to read from there
  std::size_t skip = 0;            // of those in front of the record
  Region large;

  [[nodiscard]] std::span<const std::uint8_t> bytes(const Record& which) const {
    return {buffer + skip, static_cast<std::size_t>(which.bytes)};
  }
};

class ReadBuffers {
 public:
  [[nodiscard]] static Result<std::unique_ptr<ReadBuffers>> make(const SlotPlan& plan,
                                                                 Ledger& ledger);

  // A free slot; waits for one, or nothing once closed. try_slot: nothing when none is free.
  [[nodiscard]] std::optional<std::size_t> slot(Nanoseconds& waited) { return free_.pop(waited); }
  [[nodiscard]] std::optional<std::size_t> try_slot() { return free_.try_pop(); }
  // Fills the fields of `item` from `slot` to `large` for a record. Waits while large records hold
  // all they may. Errors: too_large when memory is refused.
  [[nodiscard]] Result<void> prepare(ReadItem& item, const Record& record, bool direct,
                                     Nanoseconds& waited);
  void give_back(ReadItem& item);
  void close();

  [[nodiscard]] const SlotPlan& plan() const { return plan_; }
  [[nodiscard]] std::uint8_t* slot_memory(std::size_t slot) const {
    return memory_.data() + slot * plan_.bytes;
  }

 private:
  ReadBuffers(const SlotPlan& plan, Region memory, Ledger& ledger);

  SlotPlan plan_;
  Region memory_;
  Ledger& ledger_;
  BoundedQueue<std::size_t> free_;
  std::mutex mutex_;
  std::condition_variable large_changed_;
  std::size_t large_held_ = 0;
  bool closed_ = false;
};

}  // namespace steelyard::rehearse
