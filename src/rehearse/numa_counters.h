// What the kernel counts of memory it gave, by NUMA node: /sys/devices/system/node/node*/numastat
// (kernel: admin-guide/numastat.rst). Whole machine; memory that is only read or written is not
// counted anywhere that a program may look.
#pragma once

#include <vector>

#include "facts/rehearsal.h"
#include "sense/tree.h"

namespace steelyard::rehearse {

class NumaCounters {
 public:
  explicit NumaCounters(sense::Tree tree = sense::Tree());
  // Since this was made; empty where the kernel tells nothing.
  [[nodiscard]] std::vector<facts::RehearsalNode> since() const;

 private:
  [[nodiscard]] std::vector<facts::RehearsalNode> read() const;

  sense::Tree tree_;
  std::vector<facts::RehearsalNode> before_;
};

}  // namespace steelyard::rehearse
