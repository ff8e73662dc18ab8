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
  // At most so many blocks wait for a stream; 0: any number.
  WaitingBlocks(Allocator& allocator, std::int64_t limit) : allocator_(allocator), limit_(limit) {}

  // Of the blocks that wait for a stream, the oldest is done when more units are in flight than
  // the rate limiter allows (torch/distributed/fsdp/_limiter_utils.py: two).
  void retire(BlockId block, step::Stream stream);
  // Without a limit the host runs ahead through a micro-batch, and reads its loss at the end.
  void begin(step::PhaseKind phase);
  // The streams are waited for: all are free. True where a block waited.
  bool finish();
  void add_to(Fingerprint& print) const;

 private:
  Allocator& allocator_;
  std::int64_t limit_;
  step::PhaseKind phase_ = step::PhaseKind::zero_grad;
  std::map<step::Stream, std::deque<BlockId>> by_stream_;
};

}  // namespace steelyard::vram
