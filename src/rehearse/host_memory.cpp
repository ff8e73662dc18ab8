#include "rehearse/host_memory.h"

#include <sstream>
#include <string_view>

namespace steelyard::rehearse {
namespace {

// A version 1 group without a limit shows a number near 2^63, rounded to pages.
constexpr std::int64_t kNoLimit = std::int64_t{1} << 60;

// "RssAnon:     1234 kB", or in memory.stat "file 1234" in bytes.
std::optional<Bytes> line_of(const std::optional<std::string>& text, std::string_view key) {
  if (!text) return std::nullopt;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string name, unit;
    std::int64_t value = 0;
    if (!(words >> name >> value) || name != key) continue;
    words >> unit;
    return Bytes(value) * (unit == "kB" ? 1024 : 1);
  }
  return std::nullopt;
}

// The path of this process's group in the hierarchy that has `controller`; "" is version 2.
std::optional<std::string> group_path(const sense::Tree& tree, std::string_view controller) {
  const auto text = tree.text("/proc/self/cgroup");
  if (!text) return std::nullopt;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string names = "," + line.substr(first + 1, second - first - 1) + ",";
    if (names == ",,") {
      if (controller.empty()) return line.substr(second + 1);
    } else if (!controller.empty() &&
               names.find("," + std::string(controller) + ",") != std::string::npos) {
      return line.substr(second + 1);
    }
  }
  return std::nullopt;
}

}  // namespace

HostMemory::HostMemory(sense::Tree tree) : tree_(std::move(tree)) {
  // In a container the group's own folder is often mounted at the root.
  if (const auto path = group_path(tree_, "")) {
    for (const std::string& folder : {"/sys/fs/cgroup" + *path, std::string("/sys/fs/cgroup")}) {
      if (tree_.number(folder + "/memory.current")) {
        group_ = folder;
        second_ = true;
        return;
      }
    }
  }
  if (const auto path = group_path(tree_, "memory")) {
    for (const std::string& folder :
         {"/sys/fs/cgroup/memory" + *path, std::string("/sys/fs/cgroup/memory")}) {
      if (tree_.number(folder + "/memory.usage_in_bytes")) {
        group_ = folder;
        return;
      }
    }
  }
}

MemoryNow HostMemory::read() const {
  MemoryNow memory;
  memory.anonymous = line_of(tree_.text("/proc/self/status"), "RssAnon:");
  if (group_.empty()) return memory;
  memory.group_page_cache =
      line_of(tree_.text(group_ + "/memory.stat"), second_ ? "file" : "total_cache");
  const auto used = tree_.number(group_ + (second_ ? "/memory.current" : "/memory.usage_in_bytes"));
  if (used) memory.group_used = Bytes(*used);
  return memory;
}

std::optional<MemoryLimit> HostMemory::limit() const {
  const MemoryNow memory = read();
  const Bytes own = memory.anonymous.value_or(Bytes(0));
  std::optional<MemoryLimit> least;
  const auto consider = [&](Bytes bytes, const char* whose) {
    if (!least || bytes < least->bytes) least = MemoryLimit{.bytes = bytes, .whose = whose};
  };
  if (const auto available = line_of(tree_.text("/proc/meminfo"), "MemAvailable:")) {
    consider(*available + own, "the machine");
  }
  // Every group above binds too. Page cache makes way; the rest of what is charged does not.
  for (std::string group = group_; group.size() >= std::string_view("/sys/fs/cgroup").size();
       group.resize(group.rfind('/'))) {
    const auto most = tree_.number(group + (second_ ? "/memory.max" : "/memory.limit_in_bytes"));
    const auto used =
        tree_.number(group + (second_ ? "/memory.current" : "/memory.usage_in_bytes"));
    const auto cache =
        line_of(tree_.text(group + "/memory.stat"), second_ ? "file" : "total_cache");
    if (!most || *most >= kNoLimit || !used) continue;
    const Bytes fixed = Bytes(*used) - cache.value_or(Bytes(0)) - own;
    consider(Bytes(*most) - std::max(Bytes(0), fixed), "the control group");
  }
  return least;
}

}  // namespace steelyard::rehearse
