#include "rehearse/ledger.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/format.h"
#include "rehearse/pages.h"

namespace steelyard::rehearse {

void Ledger::add(Kind kind, std::int64_t bytes) {
  Account& account = accounts_[static_cast<std::size_t>(kind)];
  const std::int64_t now = account.now.fetch_add(bytes) + bytes;
  std::int64_t most = account.most.load();
  while (now > most && !account.most.compare_exchange_weak(most, now)) {
  }
}

Result<Region> Region::make(std::size_t bytes, Kind kind, Ledger& ledger) {
  const std::size_t whole = in_pages(bytes);
  void* const memory =
      mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return fail(
        {.code = ErrorCode::too_large,
         .subject = "memory for the rehearsal's buffers",
         .found = to_text(Bytes(static_cast<std::int64_t>(whole))) + ": " + std::strerror(errno),
         .hint = "a smaller --batch or --prefetch, or fewer --accelerators"});
  }
  // Refused: small pages serve too.
  if (page_for(bytes) == kHugePage) madvise(memory, whole, MADV_HUGEPAGE);
  std::memset(memory, 0, whole);
  Region region;
  region.data_ = static_cast<std::uint8_t*>(memory);
  region.size_ = whole;
  region.kind_ = kind;
  region.ledger_ = &ledger;
  ledger.add(kind, static_cast<std::int64_t>(whole));
  return region;
}

Region& Region::operator=(Region&& other) noexcept {
  if (this == &other) return *this;
  release();
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  kind_ = other.kind_;
  ledger_ = std::exchange(other.ledger_, nullptr);
  return *this;
}

void Region::release() {
  if (data_ == nullptr) return;
  munmap(data_, size_);
  ledger_->add(kind_, -static_cast<std::int64_t>(size_));
  data_ = nullptr;
}

}  // namespace steelyard::rehearse
