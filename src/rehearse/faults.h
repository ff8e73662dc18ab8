// What went wrong with records: counted by kind, the first few named. Its memory is bounded
// whatever the number of faults. Safe to use from several threads.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "facts/rehearsal.h"

namespace steelyard::rehearse {

class Faults {
 public:
  static constexpr std::size_t kNamed = 5;  // different ones of each kind

  void add(facts::FaultKind kind, const std::string& file, const std::string& what);

  [[nodiscard]] std::int64_t total() const;
  [[nodiscard]] std::vector<facts::RehearsalFault> list() const;  // kinds that happened

 private:
  mutable std::mutex mutex_;
  std::array<facts::RehearsalFault, facts::kFaultKinds> kinds_{};
};

}  // namespace steelyard::rehearse
