#include <algorithm>
#include <set>

#include "sense/limits.h"

namespace steelyard::sense {
namespace {

// One of "memory,cpu" or "rw,cpu,cpuacct".
bool names(std::string_view list, std::string_view controller) {
  while (!list.empty()) {
    const std::size_t end = std::min(list.find(','), list.size());
    if (list.substr(0, end) == controller) return true;
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return false;
}

// The path of this process in the hierarchy of a controller; "" is version 2.
std::optional<std::string> own_path(std::string_view cgroups, std::string_view controller) {
  for (const std::string_view line : lines_of(cgroups)) {  // "4:memory:/job/1"
    const auto head = split_at(line, ':');
    const auto tail = head ? split_at(head->second, ':') : std::nullopt;
    if (!tail) continue;
    const bool version_2 = head->first == "0" && tail->first.empty();
    if (controller.empty() ? version_2 : names(tail->first, controller)) {
      return std::string(tail->second);
    }
  }
  return std::nullopt;
}

// The part of `path` below `root`; a group outside of what is mounted shows as "/" only.
std::string below(std::string_view root, std::string_view path) {
  if (path.find("..") != std::string_view::npos) return "/";
  if (root == "/" || root.empty()) return std::string(path);
  if (path == root || !path.starts_with(root) || path[root.size()] != '/') return "/";
  return std::string(path.substr(root.size()));
}

// A container without a namespace of its own for groups names a path of the host that its mount
// does not have: then the root of the mount is what it sees of its group.
std::string visible(const Tree& tree, const std::string& mount, std::string path) {
  while (path != "/" && !path.empty() && !tree.exists(mount + path)) {
    path.resize(path.rfind('/'));
  }
  return path.empty() ? "/" : path;
}

}  // namespace

std::optional<CgroupPath> cgroup_of(const Tree& tree, const std::vector<MountLine>& lines,
                                    std::string_view controller) {
  const std::string cgroups = tree.text("/proc/self/cgroup").value_or("");
  if (const auto path = own_path(cgroups, controller)) {
    for (const MountLine& line : lines) {
      if (line.filesystem != "cgroup" || !names(line.own_options, controller)) continue;
      return CgroupPath{false, line.path, visible(tree, line.path, below(line.root, *path))};
    }
  }
  const auto path = own_path(cgroups, "");
  for (const MountLine& line : lines) {
    if (!path || line.filesystem != "cgroup2") continue;
    const CgroupPath group{true, line.path, visible(tree, line.path, below(line.root, *path))};
    // Beside version 1, version 2 may have no controllers at all.
    const std::string file = line.path + (group.path == "/" ? "" : group.path);
    const auto all = tree.text(file + "/cgroup.controllers");
    const std::vector<std::string_view> words = words_of(all ? std::string_view(*all) : "");
    if (std::find(words.begin(), words.end(), controller) == words.end()) continue;
    return group;
  }
  return std::nullopt;
}

std::vector<std::string> upwards(const CgroupPath& group) {
  std::vector<std::string> paths;
  std::string path = group.path;
  while (path.size() > 1) {
    paths.push_back(path);
    path.resize(path.rfind('/'));
  }
  paths.emplace_back("/");
  return paths;
}

}  // namespace steelyard::sense
