#include "rehearse/write/record_source.h"

#include <algorithm>

namespace steelyard::rehearse {

Result<std::uint64_t> RecordSource::prepare(std::uint64_t bytes) {
  if (pictures_ == nullptr) {
    left_ = bytes;
    return bytes;
  }
  STEELYARD_CHECK(pictures_->make(bytes, noise_, buffer_));
  return buffer_.size();
}

Result<void> RecordSource::give(const Put& put) {
  if (pictures_ != nullptr) return put(buffer_);
  constexpr std::uint64_t kPiece = 256 * 1024;
  buffer_.resize(static_cast<std::size_t>(std::min(left_, kPiece)));
  while (left_ > 0) {
    const auto piece = static_cast<std::size_t>(std::min(left_, kPiece));
    if (stop_ != nullptr && stop_->load()) {
      return fail({.code = ErrorCode::bad_input,
                   .subject = "the data set",
                   .found = "stopped",
                   .accepted = "to be written to its end"});
    }
    const std::span<unsigned char> part(buffer_.data(), piece);
    noise_.fill(part);
    STEELYARD_CHECK(put(part));
    left_ -= piece;
  }
  return {};
}

}  // namespace steelyard::rehearse
