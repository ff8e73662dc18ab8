// A mapping of anonymous memory that goes away with its owner.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "base/error.h"
#include "base/quantity.h"

namespace steelyard::probe {

enum class PageSize { small, huge };  // huge is asked for (madvise), and may not be had

class Pages {
 public:
  // Nothing is touched yet. Fails where the kernel gives no such mapping.
  [[nodiscard]] static Result<Pages> map(Bytes size, PageSize pages);
  Pages(Pages&& other) noexcept;
  Pages& operator=(Pages&& other) noexcept;
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  ~Pages();

  // The pages that are touched from now on lie on this NUMA node. False where that is refused:
  // containers often forbid mbind.
  [[nodiscard]] bool bind_to_node(int node);

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return size_; }
  template <class T>
  [[nodiscard]] std::span<T> as() const {
    return {reinterpret_cast<T*>(data_), size_ / sizeof(T)};
  }

 private:
  Pages(std::byte* data, std::size_t size) : data_(data), size_(size) {}
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace steelyard::probe
