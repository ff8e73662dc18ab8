#include "probe/pages.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "base/format.h"

namespace steelyard::probe {

namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

}  // namespace

Result<Pages> Pages::map(Bytes size, PageSize pages) {
  // A whole number of huge pages at their boundary: glibc's and the kernel's choice of an address
  // need not lie there, so the ends of a larger mapping are given back.
  const std::size_t bytes =
      (static_cast<std::size_t>(size.value()) + kHugePage - 1) / kHugePage * kHugePage;
  void* mapped = mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) {
    return fail({.code = ErrorCode::unreadable,
                 .subject = "memory for the measurement",
                 .found = fmt::format("{} refused ({})", to_text(size), std::strerror(errno)),
                 .accepted = "a host with that much free memory"});
  }
  const auto begin = reinterpret_cast<std::uintptr_t>(mapped);
  const std::uintptr_t aligned = (begin + kHugePage - 1) / kHugePage * kHugePage;
  if (aligned > begin) munmap(mapped, aligned - begin);
  const std::size_t behind = kHugePage - (aligned - begin);
  if (behind > 0) munmap(reinterpret_cast<void*>(aligned + bytes), behind);
  auto* data = reinterpret_cast<std::byte*>(aligned);
  (void)madvise(data, bytes, pages == PageSize::huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  return Pages(data, bytes);
}

Pages::Pages(Pages&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Pages& Pages::operator=(Pages&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

Pages::~Pages() {
  if (data_ != nullptr) munmap(data_, size_);
}

bool Pages::bind_to_node(int node) {
  constexpr unsigned kBitsPerWord = 8 * sizeof(unsigned long);
  constexpr int kBind = 2;  // MPOL_BIND of linux/mempolicy.h, which not every system has installed
  const auto bit = static_cast<unsigned>(node);
  std::vector<unsigned long> mask(bit / kBitsPerWord + 1);
  mask[bit / kBitsPerWord] |= 1UL << (bit % kBitsPerWord);
  // The kernel reads one bit less than it is told.
  const unsigned long bits = mask.size() * kBitsPerWord + 1;
  return syscall(SYS_mbind, data_, size_, kBind, mask.data(), bits, 0) == 0;
}

}  // namespace steelyard::probe
