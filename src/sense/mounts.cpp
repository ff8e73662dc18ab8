#include "sense/mounts.h"

#include <algorithm>
#include <array>
#include <set>

#include "sense/words.h"

namespace steelyard::sense {
namespace {

// \040 is a blank: the kernel escapes what separates the fields.
std::string unescaped(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](std::size_t at) { return text[at] >= '0' && text[at] <= '7'; };
    if (text[i] == '\\' && i + 3 < text.size() && digit(i + 1) && digit(i + 2) && digit(i + 3)) {
      plain += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                 (text[i + 3] - '0'));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

// "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue"
std::optional<MountLine> parsed(std::string_view line) {
  const std::vector<std::string_view> words = words_of(line);
  const auto dash = std::find(words.begin(), words.end(), "-");
  constexpr std::size_t kBefore = 6;
  if (dash - words.begin() < static_cast<std::ptrdiff_t>(kBefore) || words.end() - dash < 3) {
    return std::nullopt;
  }
  return MountLine{.device = std::string(words[2]),
                   .root = unescaped(words[3]),
                   .path = unescaped(words[4]),
                   .options = std::string(words[5]),
                   .filesystem = std::string(dash[1]),
                   .source = unescaped(dash[2]),
                   .own_options = words.end() - dash > 3 ? std::string(dash[3]) : ""};
}

// "/dev/sda1 / ext4 rw,relatime 0 0"
std::optional<MountLine> parsed_short(std::string_view line) {
  const std::vector<std::string_view> words = words_of(line);
  if (words.size() < 4) return std::nullopt;
  return MountLine{.device = "",
                   .root = "/",
                   .path = unescaped(words[1]),
                   .options = std::string(words[3]),
                   .filesystem = std::string(words[2]),
                   .source = unescaped(words[0]),
                   .own_options = std::string(words[3])};
}

// The name of the folder that the last part of a path lies in.
std::string folder_of(std::string_view path) {
  return last_part(path.substr(0, path.size() - last_part(path).size()));
}

bool is_network(std::string_view filesystem) {
  constexpr std::array kNetwork = {"nfs",    "nfs4",       "lustre",       "gpfs",
                                   "beegfs", "ceph",       "cifs",         "smb3",
                                   "9p",     "fuse.sshfs", "fuse.s3fs",    "fuse.glusterfs",
                                   "wekafs", "virtiofs",   "fuse.gcsfuse", "fuse.juicefs",
                                   "pvfs2",  "daos",       "fuse.dfuse",   "vast"};
  return std::find(kNetwork.begin(), kNetwork.end(), filesystem) != kNetwork.end();
}

bool holds_data(const MountLine& line) {
  constexpr std::array kLocal = {"ext2", "ext3",    "ext4", "xfs",      "btrfs", "f2fs",
                                 "zfs",  "overlay", "vfat", "bcachefs", "tmpfs", "ramfs"};
  const bool local = std::find(kLocal.begin(), kLocal.end(), line.filesystem) != kLocal.end();
  return local || is_network(line.filesystem) || line.source.starts_with("/dev/");
}

// Drives below a block device: itself, the one that a partition lies in (.../nvme0n1/nvme0n1p2), or
// those that a RAID or a volume is made of.
void add_drives(const Tree& tree, const std::string& name, const std::string& above, int depth,
                std::set<std::string>& found) {
  constexpr int kDeepest = 4;  // a volume on an encrypted partition of a RAID
  const bool whole = tree.exists("/sys/block/" + name);
  const std::vector<std::string> parts =
      whole ? tree.names("/sys/block/" + name + "/slaves") : std::vector<std::string>();
  if (parts.empty() || depth > kDeepest) {
    found.insert(whole ? name : above);
    return;
  }
  for (const std::string& part : parts) {
    const auto link = tree.link("/sys/class/block/" + part);
    add_drives(tree, part, link ? folder_of(*link) : part, depth + 1, found);
  }
}

std::string drive_of(const Tree& tree, const MountLine& line) {
  const auto link = tree.link("/sys/dev/block/" + line.device);
  if (!link) return "";
  std::set<std::string> found;
  add_drives(tree, last_part(*link), folder_of(*link), 0, found);
  std::string names;
  for (const std::string& name : found) names += (names.empty() ? "" : "+") + name;
  return names;
}

bool has_option(std::string_view options, std::string_view wanted) {
  while (!options.empty()) {
    const std::size_t end = std::min(options.find(','), options.size());
    if (options.substr(0, end) == wanted) return true;
    options.remove_prefix(std::min(end + 1, options.size()));
  }
  return false;
}

}  // namespace

std::vector<MountLine> mount_lines(const Tree& tree) {
  std::vector<MountLine> found;
  const auto full = tree.text("/proc/self/mountinfo");
  const std::string text = full ? *full : tree.text("/proc/mounts").value_or("");
  for (const std::string_view line : lines_of(text)) {
    auto mount = full ? parsed(line) : parsed_short(line);
    if (mount) found.push_back(std::move(*mount));
  }
  return found;
}

std::vector<facts::Mount> mounts(const Tree& tree, const std::vector<MountLine>& lines) {
  std::vector<facts::Mount> found;
  for (const MountLine& line : lines) {
    if (!holds_data(line)) continue;
    std::erase_if(found, [&](const facts::Mount& below) { return below.path == line.path; });
    found.push_back({.path = line.path,
                     .source = line.source,
                     .filesystem = line.filesystem,
                     .drive = line.device.empty() ? "" : drive_of(tree, line),
                     .network = is_network(line.filesystem),
                     .read_only = has_option(line.options, "ro")});
  }
  return found;
}

const facts::Mount* mount_of(const std::vector<facts::Mount>& mounts, std::string_view path) {
  const facts::Mount* best = nullptr;
  for (const facts::Mount& mount : mounts) {
    const bool above = mount.path == "/" || path == mount.path ||
                       (path.starts_with(mount.path) && path.size() > mount.path.size() &&
                        path[mount.path.size()] == '/');
    if (above && (best == nullptr || mount.path.size() > best->path.size())) best = &mount;
  }
  return best;
}

std::optional<Bytes> size_option(std::string_view options) {
  const std::size_t at = options.find("size=");
  if (at == std::string_view::npos || (at > 0 && options[at - 1] != ',')) return std::nullopt;
  std::string_view value = options.substr(at + 5);
  value = value.substr(0, value.find(','));
  if (value.empty()) return std::nullopt;
  std::int64_t unit = 1;
  if (value.back() == 'k') unit = std::int64_t{1} << 10;
  if (value.back() == 'm') unit = std::int64_t{1} << 20;
  if (value.back() == 'g') unit = std::int64_t{1} << 30;
  if (unit != 1) value.remove_suffix(1);
  const auto number = whole(value);
  if (!number || *number < 0 || *number > (std::int64_t{1} << 62) / unit) return std::nullopt;
  return Bytes(*number * unit);
}

}  // namespace steelyard::sense
