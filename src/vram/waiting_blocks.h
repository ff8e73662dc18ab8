// Blocks that were freed while another stream may still read them (Tensor.record_stream).
#pragma once

#include <deque>
#include <map>

#include "base/fingerprint.h"
#include "step/program.h"
#include "vram/allocator.h"

namespace steelyard::vram {

class WaitingBlocks {
 public:
  explicit WaitingBlocks(Allocator& allocator) : allocator_(allocator) {}

  // Of the blocks that wait for a stream, the oldest is done when more units are in flight than
  // the rate limiter allows (torch/distributed/fsdp/_limiter_utils.py: two).
  void retire(BlockId block, step::Stream stream);
  // The streams are waited for: all are free. True where a block waited.
  bool finish();
  void add_to(Fingerprint& print) const;

 private:
  Allocator& allocator_;
  std::map<step::Stream, std::deque<BlockId>> by_stream_;
};

}  // namespace steelyard::vram
