// The sizes in which the kernel gives memory.
#pragma once

#include <cstddef>

namespace steelyard::rehearse {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

// A region smaller than a huge page is not rounded up to one: it would take up to 2 MiB more.
constexpr std::size_t page_for(std::size_t bytes) {
  return bytes >= kHugePage ? kHugePage : kPage;
}
constexpr std::size_t in_pages(std::size_t bytes) {
  return (bytes + page_for(bytes) - 1) / page_for(bytes) * page_for(bytes);
}

}  // namespace steelyard::rehearse
