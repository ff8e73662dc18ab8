#include "rehearse/read/read_buffers.h"

#include <algorithm>
#include <vector>

namespace steelyard::rehearse {
namespace {

constexpr double kFitShare = 0.98;        // of records that fit into a slot
constexpr std::size_t kLooked = 100'000;  // records whose sizes decide
// That records beyond a slot may hold together, or two of the largest.
constexpr std::size_t kLargeBytes = std::size_t{64} << 20;

std::size_t in_blocks(std::uint64_t bytes, bool direct) {
  // A direct read may begin in the block before and end in the one behind.
  const std::uint64_t with_edges = direct ? bytes + 2 * kBlock : bytes;
  return static_cast<std::size_t>((with_edges + kBlock - 1) / kBlock * kBlock);
}

}  // namespace

SlotPlan plan_slots(const Dataset& dataset, std::size_t count, bool direct) {
  const std::size_t step = std::max<std::size_t>(1, dataset.records.size() / kLooked);
  std::vector<std::uint64_t> sizes;
  std::uint64_t largest = 1;
  for (std::size_t i = 0; i < dataset.records.size(); ++i) {
    largest = std::max(largest, dataset.records[i].bytes);
    if (i % step == 0) sizes.push_back(dataset.records[i].bytes);
  }
  const auto place =
      static_cast<std::size_t>(kFitShare * static_cast<double>(sizes.size() - 1) + 0.5);
  std::nth_element(sizes.begin(), sizes.begin() + static_cast<std::ptrdiff_t>(place), sizes.end());
  SlotPlan plan{.count = count,
                .bytes = in_blocks(std::max<std::uint64_t>(1, sizes[place]), direct),
                .largest = in_blocks(largest, direct)};
  if (plan.largest > plan.bytes) plan.large_bytes = std::max(kLargeBytes, 2 * plan.largest);
  // Slots hardly smaller than the largest record: all of that size, and nothing beside them.
  if (plan.largest <= plan.bytes + plan.bytes / 4) {
    plan.bytes = plan.largest;
    plan.large_bytes = 0;
  }
  return plan;
}

Result<std::unique_ptr<ReadBuffers>> ReadBuffers::make(const SlotPlan& plan, Ledger& ledger) {
  STEELYARD_TRY(memory, Region::make(plan.count * plan.bytes, Kind::read_buffers, ledger));
  return std::unique_ptr<ReadBuffers>(new ReadBuffers(plan, std::move(memory), ledger));
}

ReadBuffers::ReadBuffers(const SlotPlan& plan, Region memory, Ledger& ledger)
    : plan_(plan), memory_(std::move(memory)), ledger_(ledger) {
  for (std::size_t i = 0; i < plan.count; ++i) free_.push(i);
}

Result<void> ReadBuffers::prepare(ReadItem& item, const Record& record, bool direct,
                                  Nanoseconds& waited) {
  item.from = direct ? record.offset / kBlock * kBlock : record.offset;
  item.skip = static_cast<std::size_t>(record.offset - item.from);
  item.wanted = item.skip + static_cast<std::size_t>(record.bytes);
  if (direct) item.wanted = (item.wanted + kBlock - 1) / kBlock * kBlock;
  item.buffer = slot_memory(item.slot);
  if (item.wanted <= plan_.bytes) return {};
  {
    std::unique_lock lock(mutex_);
    const Nanoseconds begin = now();
    large_changed_.wait(lock, [&] {
      return closed_ || large_held_ == 0 || large_held_ + item.wanted <= plan_.large_bytes;
    });
    waited += now() - begin;
    large_held_ += item.wanted;
  }
  auto large = Region::make(item.wanted, Kind::read_buffers, ledger_);
  if (!large) {
    const std::scoped_lock lock(mutex_);
    large_held_ -= item.wanted;
    return fail(std::move(large).error());
  }
  item.large = std::move(*large);
  item.buffer = item.large.data();
  return {};
}

void ReadBuffers::give_back(ReadItem& item) {
  if (item.large.data() != nullptr) {
    item.large = Region();
    {
      const std::scoped_lock lock(mutex_);
      large_held_ -= item.wanted;
    }
    large_changed_.notify_all();
  }
  free_.push(item.slot);
}

void ReadBuffers::close() {
  free_.close();
  {
    const std::scoped_lock lock(mutex_);
    closed_ = true;
  }
  large_changed_.notify_all();
}

}  // namespace steelyard::rehearse
