#include "rehearse/faults.h"

#include <algorithm>

namespace steelyard::rehearse {

void Faults::add(facts::FaultKind kind, const std::string& file, const std::string& what) {
  const std::scoped_lock lock(mutex_);
  facts::RehearsalFault& fault = kinds_[static_cast<std::size_t>(kind)];
  fault.kind = kind;
  ++fault.count;
  if (fault.first.size() >= kNamed) return;
  std::string named = file + ": " + what;
  // A record that is met once an epoch is named once.
  if (std::find(fault.first.begin(), fault.first.end(), named) != fault.first.end()) return;
  fault.first.push_back(std::move(named));
}

std::int64_t Faults::total() const {
  const std::scoped_lock lock(mutex_);
  std::int64_t sum = 0;
  for (const auto& fault : kinds_) sum += fault.count;
  return sum;
}

std::vector<facts::RehearsalFault> Faults::list() const {
  const std::scoped_lock lock(mutex_);
  std::vector<facts::RehearsalFault> list;
  for (const auto& fault : kinds_) {
    if (fault.count > 0) list.push_back(fault);
  }
  return list;
}

}  // namespace steelyard::rehearse
