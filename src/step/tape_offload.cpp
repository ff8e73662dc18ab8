// Saved tensors on the host: torchtune's OffloadActivations
// (torchtune/training/_activation_offloading.py). Each saved tensor of at least 1024 bytes that is
// no parameter is copied to the host when it is packed and back to the GPU when its node asks for
// it. The copies run on a stream of their own: the last five packed tensors stay until theirs is
// done (max_fwd_stash_size).
#include "step/tape.h"

namespace steelyard::step {

namespace {

constexpr Bytes kLeastOffloaded(1024);
constexpr std::size_t kForwardStash = 5;

}  // namespace

StorageRef Tape::offloaded(const StorageRef& storage) {
  const bool stays = storage->external || storage->weight || storage->cast || storage->on_host ||
                     storage->bytes < kLeastOffloaded;
  if (stays || (storage->pending && !storage->sources.empty())) return storage;
  stash_.push_back(storage);
  if (stash_.size() > kForwardStash) stash_.pop_front();
  offloaded_ += storage->bytes;
  auto copy = std::make_shared<Storage>();
  copy->tape = this;
  copy->bytes = storage->bytes;
  copy->slot = new_slot(storage->bytes, "restored", facts::VramCategory::activations);
  copy->pending = copy->on_host = true;
  return copy;
}

void Tape::drain_stash() {
  stash_.clear();
}

}  // namespace steelyard::step
