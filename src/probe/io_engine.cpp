#include "probe/io_engine.h"

#include <fmt/format.h>

#include <cstring>

#include "base/format.h"

namespace steelyard::probe {

Offsets::Offsets(const IoPattern& pattern)
    : pattern_(pattern),
      count_((pattern.end - pattern.begin).value() / pattern.request.value()),
      state_(pattern.seed) {}

std::int64_t Offsets::next() {
  if (count_ <= 0 || (pattern_.once && issued_ >= count_)) return -1;
  std::int64_t index = (pattern_.first + issued_) % count_;
  if (pattern_.order == Order::random) {
    // SplitMix64 (Steele, Lea, Flood 2014): fast, and good enough to defeat a read-ahead.
    state_ += 0x9e3779b97f4a7c15ULL;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebULL;
    index = static_cast<std::int64_t>((z ^ (z >> 31U)) % static_cast<std::uint64_t>(count_));
  }
  ++issued_;
  return pattern_.begin.value() + index * pattern_.request.value();
}

Error io_error(const IoPattern& pattern, int error, std::int64_t moved) {
  const char* what = pattern.direction == Direction::read ? "reading" : "writing";
  return {
      .code = ErrorCode::unreadable,
      .subject = fmt::format("{} {} of the test file", what, to_text(pattern.request)),
      .found = error != 0 ? std::strerror(error) : fmt::format("{} only", to_text(Bytes(moved))),
      .accepted = "a whole request"};
}

std::unique_ptr<IoEngine> make_io_engine(std::string& reason, const RingProbe& probe) {
  const int status = probe();
  if (status == 0) return make_uring_engine();
  reason = fmt::format("io_uring cannot be used ({}): threads with pread and pwrite took over",
                       std::strerror(-status));
  return make_thread_engine();
}

}  // namespace steelyard::probe
