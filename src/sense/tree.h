// The small text files in which a kernel tells about its machine (/proc, /sys), read below a root:
// "/" is this machine, a folder is a recorded one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
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
  // Where a symbolic link points, as it is written; nothing where there is none.
  [[nodiscard]] std::optional<std::string> link(const std::string& path) const;
  [[nodiscard]] bool exists(const std::string& path) const;

  // A tree of the same root that writes down every path that it is asked for; copies share the set.
  [[nodiscard]] Tree remembering() const;
  // What was asked for; empty for a tree that does not remember.
  [[nodiscard]] std::set<std::string> asked() const;

 private:
  void note(const std::string& path) const;

  std::filesystem::path root_;
  std::shared_ptr<std::set<std::string>> asked_;
};

}  // namespace steelyard::sense
