// What memory this process may have and has: of the control group it is in (version 1 or 2), of the
// machine, of itself.
#pragma once

#include <optional>
#include <string>

#include "base/quantity.h"
#include "sense/tree.h"

namespace steelyard::rehearse {

struct MemoryNow {
  std::optional<Bytes> anonymous;         // RssAnon of /proc/self/status
  std::optional<Bytes> group_page_cache;  // file pages charged to the control group
  std::optional<Bytes> group_used;        // all that is charged to it
};

struct MemoryLimit {
  Bytes bytes;        // that this process may take, with what it has
  std::string whose;  // "the control group", "the machine"
};

class HostMemory {
 public:
  explicit HostMemory(sense::Tree tree = sense::Tree());

  [[nodiscard]] MemoryNow read() const;
  // The least that binds now; nothing where the kernel tells nothing.
  [[nodiscard]] std::optional<MemoryLimit> limit() const;

 private:
  sense::Tree tree_;
  std::string group_;    // folder of the control group's memory files; empty: none found
  bool second_ = false;  // its version
};

}  // namespace steelyard::rehearse
