// The buffers that a rehearsal owns, by kind: what is held now and the most that was. And memory
// for them that is asked for in huge pages.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/quantity.h"

namespace steelyard::rehearse {

enum class Kind { index, read_buffers, batches, decoding };
constexpr std::size_t kKinds = 4;

// Safe to use from several threads.
class Ledger {
 public:
  void add(Kind kind, std::int64_t bytes);  // negative: given back
  [[nodiscard]] Bytes held(Kind kind) const { return Bytes(of(kind).now.load()); }
  [[nodiscard]] Bytes most(Kind kind) const { return Bytes(of(kind).most.load()); }

 private:
  struct Account {
    std::atomic<std::int64_t> now{0}, most{0};
  };
  [[nodiscard]] const Account& of(Kind kind) const {
    return accounts_[static_cast<std::size_t>(kind)];
  }
  std::array<Account, kKinds> accounts_;
};

// Where a region lies: pieces of `turn` bytes on the NUMA nodes in turn. No nodes: where it is
// touched first.
struct Placement {
  std::vector<int> nodes{};
  std::size_t turn = 0;
};

// Memory of its own mapping, in huge pages where the kernel has them (madvise), given back when it
// goes. Its pages are touched when they are made: what it takes, it takes at once.
class Region {
 public:
  Region() = default;
  // Errors: too_large when the kernel refuses (ENOMEM).
  [[nodiscard]] static Result<Region> make(std::size_t bytes, Kind kind, Ledger& ledger,
                                           const Placement& placement = {});
  Region(Region&& other) noexcept { *this = static_cast<Region&&>(other); }
  Region& operator=(Region&& other) noexcept;
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  ~Region() { release(); }

  [[nodiscard]] std::uint8_t* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return size_; }

 private:
  void release();

  std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
  Kind kind_ = Kind::index;
  Ledger* ledger_ = nullptr;
};

}  // namespace steelyard::rehearse
