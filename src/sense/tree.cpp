#include "sense/tree.h"

#include <algorithm>
#include <charconv>
#include <fstream>

namespace steelyard::sense {

namespace {

constexpr std::streamsize kLargestFile = 1 << 20;

}  // namespace

std::filesystem::path Tree::at(const std::string& path) const {
  return root_ / std::filesystem::path(path).relative_path();
}

std::optional<std::string> Tree::text(const std::string& path) const {
  note(path);
  std::ifstream file(at(path), std::ios::binary);
  if (!file) return std::nullopt;
  std::string content(static_cast<std::size_t>(kLargestFile), '\0');
  file.read(content.data(), kLargestFile);
  if (file.bad()) return std::nullopt;
  content.resize(static_cast<std::size_t>(file.gcount()));
  content.erase(content.find_last_not_of(" \t\r\n") + 1);
  return content;
}

std::optional<std::int64_t> Tree::number(const std::string& path) const {
  const std::optional<std::string> content = text(path);
  if (!content) return std::nullopt;
  std::int64_t value = 0;
  const char* end = content->data() + content->size();
  const auto [stop, error] = std::from_chars(content->data(), end, value);
  if (error != std::errc() || stop != end) return std::nullopt;
  return value;
}

std::vector<std::string> Tree::names(const std::string& folder) const {
  note(folder);
  std::vector<std::string> found;
  std::error_code failed;
  for (std::filesystem::directory_iterator entry(at(folder), failed), end; entry != end;
       entry.increment(failed)) {
    if (failed) break;
    found.push_back(entry->path().filename().string());
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::optional<std::string> Tree::link(const std::string& path) const {
  note(path);
  std::error_code failed;
  const std::filesystem::path target = std::filesystem::read_symlink(at(path), failed);
  if (failed) return std::nullopt;
  return target.string();
}

bool Tree::exists(const std::string& path) const {
  note(path);
  std::error_code failed;
  return std::filesystem::exists(at(path), failed);
}

Tree Tree::remembering() const {
  Tree tree(root_);
  tree.asked_ = std::make_shared<std::set<std::string>>();
  return tree;
}

std::set<std::string> Tree::asked() const {
  return asked_ ? *asked_ : std::set<std::string>();
}

void Tree::note(const std::string& path) const {
  if (asked_) asked_->insert(path);
}

}  // namespace steelyard::sense
