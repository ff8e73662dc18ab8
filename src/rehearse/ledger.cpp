#include "rehearse/ledger.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
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

namespace {

constexpr int kPreferred = 1;  // MPOL_PREFERRED (linux/mempolicy.h): a full node is no error

// A kernel or container that forbids it leaves pages where they are touched.
void prefer_node(std::uint8_t* begin, std::size_t bytes, int node) {
  constexpr unsigned long kNodes = 1024;
  constexpr unsigned long kBits = 8 * sizeof(unsigned long);
  if (node < 0 || static_cast<unsigned long>(node) >= kNodes) return;
  std::array<unsigned long, kNodes / kBits> mask{};
  mask[static_cast<std::size_t>(node) / kBits] |= 1UL << (static_cast<unsigned long>(node) % kBits);
  syscall(SYS_mbind, begin, bytes, kPreferred, mask.data(), kNodes, 0);
}

void place(std::uint8_t* memory, std::size_t bytes, const Placement& placement) {
  if (placement.nodes.empty() || placement.turn == 0) return;
  std::size_t done = 0;
  for (std::size_t i = 0; done < bytes; ++i) {
    // Whole pages: the last one of a piece is the next piece's neighbour.
    const std::size_t end = std::min(bytes, (i + 1) * placement.turn / kPage * kPage);
    if (end <= done) continue;
    prefer_node(memory + done, end - done, placement.nodes[i % placement.nodes.size()]);
    done = end;
  }
}

}  // namespace

Result<Region> Region::make(std::size_t bytes, Kind kind, Ledger& ledger,
                            const Placement& placement) {
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
  place(static_cast<std::uint8_t*>(memory), whole, placement);
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
