// The bytes of the records that a generator writes: images, or noise that nothing compresses.
#pragma once

#include <atomic>
#include <functional>

#include "base/error.h"
#include "rehearse/write/atomic_file.h"
#include "rehearse/write/noise.h"
#include "rehearse/write/pictures.h"

namespace steelyard::rehearse {

using Put = std::function<Result<void>(ByteSpan)>;

class RecordSource {
 public:
  // `pictures` is null for noise; it must outlive this.
  RecordSource(const Pictures* pictures, Noise noise) : pictures_(pictures), noise_(noise) {}

  // The record in pieces, in order. An image may be larger than asked for when that is very small:
  // `prepare` says what it will be.
  [[nodiscard]] Result<std::uint64_t> prepare(std::uint64_t bytes);
  [[nodiscard]] Result<void> give(const Put& put);
  [[nodiscard]] Noise& noise() { return noise_; }
  // Once that is set `give` fails instead of giving more.
  void stop_when(const std::atomic<bool>* stop) { stop_ = stop; }

 private:
  const Pictures* pictures_;
  Noise noise_;
  std::vector<unsigned char> buffer_{};
  std::uint64_t left_ = 0;  // of noise
  const std::atomic<bool>* stop_ = nullptr;
};

}  // namespace steelyard::rehearse
