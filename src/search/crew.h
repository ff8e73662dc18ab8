// Processes that search together: each does a part of the work, all know all of what came out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

namespace steelyard::search {

class Crew {
 public:
  Crew() = default;
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;
  virtual ~Crew() = default;

  [[nodiscard]] virtual std::size_t size() const = 0;
  [[nodiscard]] virtual std::size_t rank() const = 0;
  // What each process gives, in the order of ranks. All call it at the same point of their work; a
  // process that is lost ends all.
  [[nodiscard]] virtual std::vector<std::string> gathered(const std::string& own) = 0;
};

// Calls work(0) ... work(count - 1) on as many threads as there are cores; an exception is thrown
// again.
void on_all_cores(std::size_t count, const std::function<void(std::size_t)>& work);

// make(0) ... make(count - 1), by all cores of all processes. `crew`: none, this process alone.
// What comes out depends neither on the number of threads nor on that of processes.
template <class Made, class Make>
[[nodiscard]] std::vector<Made> made_by_all(Crew* crew, std::size_t count, const Make& make) {
  static_assert(std::is_trivially_copyable_v<Made>);
  const std::size_t size = crew == nullptr ? 1 : crew->size();
  const std::size_t rank = crew == nullptr ? 0 : crew->rank();
  const std::size_t own = count / size + (rank < count % size ? 1 : 0);
  std::vector<Made> mine(own);
  on_all_cores(own, [&](std::size_t i) { mine[i] = make(rank + i * size); });
  if (crew == nullptr) return mine;
  std::string bytes(own * sizeof(Made), '\0');
  if (own > 0) std::memcpy(bytes.data(), mine.data(), bytes.size());
  const std::vector<std::string> parts = crew->gathered(bytes);
  std::vector<Made> all(count);
  for (std::size_t i = 0; i < count; ++i) {
    std::memcpy(&all[i], parts[i % size].data() + (i / size) * sizeof(Made), sizeof(Made));
  }
  return all;
}

}  // namespace steelyard::search
