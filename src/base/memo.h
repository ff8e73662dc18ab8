// What is known by all that it depends on: one value for each key, made by whoever asks first.
// Asked side by side.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

namespace steelyard {

struct HashOfNumbers {
  template <std::size_t N>
  [[nodiscard]] std::size_t operator()(const std::array<std::int64_t, N>& numbers) const {
    std::uint64_t hash = N;
    for (const std::int64_t number : numbers) {
      hash = (hash ^ static_cast<std::uint64_t>(number)) * 0x9E3779B97F4A7C15U;
      hash ^= hash >> 29U;
    }
    return hash;
  }
};

// Values stay where they are; they guard themselves.
template <class Key, class Value, class Hash = HashOfNumbers>
class Memo {
 public:
  [[nodiscard]] Value& at(const Key& key) {
    Part& part = parts_[Hash()(key) % kParts];
    {
      const std::shared_lock lock(part.mutex);
      const auto known = part.values.find(key);
      if (known != part.values.end()) return *known->second;
    }
    const std::unique_lock lock(part.mutex);
    std::unique_ptr<Value>& value = part.values[key];
    if (!value) value = std::make_unique<Value>();
    return *value;
  }

 private:
  static constexpr std::size_t kParts = 16;  // so that threads seldom wait for each other
  struct Part {
    std::shared_mutex mutex;
    std::unordered_map<Key, std::unique_ptr<Value>, Hash> values;
  };
  std::array<Part, kParts> parts_;
};

}  // namespace steelyard
