#include "rehearse/faults.h"

namespace steelyard::rehearse {

void Faults::add(facts::FaultKind kind, const std::string& file, const std::string& what) {
  const std::scoped_lock lock(mutex_);
  facts::RehearsalFault& fault = kinds_[static_cast<std::size_t>(kind)];
  fault.kind = kind;
  ++fault.count;
  if (fault.first.size() < kNamed) fault.first.push_back(file + ": " + what);
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
