// Mounted file systems: /proc/self/mountinfo, else /proc/mounts (kernel: filesystems/proc.rst 3.5).
#pragma once

#include <string>
#include <vector>

#include "facts/topology.h"
#include "sense/tree.h"

namespace steelyard::sense {

// One line of mountinfo, its escapes (\040) undone.
struct MountLine {
  std::string device;  // "259:2"
  std::string root;    // of the file system that is mounted here: "/"
  std::string path;
  std::string options;
  std::string filesystem;
  std::string source;
  std::string own_options;  // of the file system itself: "rw,size=64k"
};

[[nodiscard]] std::vector<MountLine> mount_lines(const Tree& tree);

// Those that can hold data: on drives, from other machines, in memory (tmpfs); no kernel
// interfaces. Where one is mounted over another, the upper one; drives as /sys/dev/block names
// them.
[[nodiscard]] std::vector<facts::Mount> mounts(const Tree& tree,
                                               const std::vector<MountLine>& lines);

// The mount that holds `path`: the one with the longest path that is a folder above it.
[[nodiscard]] const facts::Mount* mount_of(const std::vector<facts::Mount>& mounts,
                                           std::string_view path);

// "size=64k" -> 64 KiB; k, m, g and none; nothing when the option is missing.
[[nodiscard]] std::optional<Bytes> size_option(std::string_view options);

}  // namespace steelyard::sense
