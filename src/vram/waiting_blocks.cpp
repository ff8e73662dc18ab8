#include "vram/waiting_blocks.h"

#include <cstddef>

namespace steelyard::vram {

void WaitingBlocks::retire(BlockId block, step::Stream stream) {
  std::deque<BlockId>& waiting = by_stream_[stream];
  allocator_.retire(block);
  waiting.push_back(block);
  if (limit_ == 0 || waiting.size() <= static_cast<std::size_t>(limit_)) return;
  allocator_.free(waiting.front());
  waiting.pop_front();
}

void WaitingBlocks::begin(step::PhaseKind phase) {
  if (limit_ == 0 && phase_ != phase && phase == step::PhaseKind::forward) finish();
  phase_ = phase;
}

bool WaitingBlocks::finish() {
  bool waited = false;
  for (auto& [stream, waiting] : by_stream_) {
    waited = waited || !waiting.empty();
    for (const BlockId block : waiting) allocator_.free(block);
    waiting.clear();
  }
  return waited;
}

void WaitingBlocks::add_to(Fingerprint& print) const {
  for (const auto& [stream, waiting] : by_stream_) {
    for (const BlockId block : waiting) print.add(allocator_.address_of(block));
  }
}

}  // namespace steelyard::vram
