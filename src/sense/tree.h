// The small text files in which a kernel tells about its machine (/proc, /sys), read below a root:
// "/" is this machine, a folder is a recorded one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace steelyard::sense {

class Tree {
 public:
  explicit Tree(std::filesystem::path root = "/") : root_(std::move(root)) {}

  // Whether this is the running machine and no recorded one.
  [[nodiscard]] bool live() const { return root_ == "/"; }
  [[nodiscard]] const std::filesystem::path& root() const { return root_; }
  // Where `path` ("/proc/meminfo") lies below the root.
  [[nodiscard]] std::filesystem::path at(const std::string& path) const;

  // The whole file without white space at its end; nothing where it cannot be read. At most 1 MiB
  // is read: no file that is meant here is larger.
  [[nodiscard]] std::optional<std::string> text(const std::string& path) const;
  // A file that holds one whole number ("/sys/.../numa_node"); nothing where it holds none.
  [[nodiscard]] std::optional<std::int64_t> number(const std::string& path) const;
  // The names in a folder, in the order of the alphabet; none where there is no such folder.
  [[nodiscard]] std::vector<std::string> names(const std::string& folder) const;

 private:
  std::filesystem::path root_;
};

}  // namespace steelyard::sense
