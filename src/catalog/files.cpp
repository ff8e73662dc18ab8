#include "catalog/files.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "codec/codec.h"

namespace steelyard::catalog {

Result<std::shared_ptr<const facts::Value>> Files::read(const std::string& relative) {
  const std::lock_guard lock(mutex_);
  if (const auto found = parsed_.find(relative); found != parsed_.end()) return found->second;
  STEELYARD_TRY(value, codec::read_value(folder_ / relative));
  auto shared = std::make_shared<const facts::Value>(std::move(value));
  parsed_.emplace(relative, shared);
  return shared;
}

Result<const facts::Array*> list_of(const facts::Value& file_content, std::string_view key,
                                    const std::filesystem::path& file) {
  const facts::Value* list = file_content.find(key);
  if (list == nullptr || list->as_array() == nullptr) {
    return fail(Error{.code = ErrorCode::bad_input,
                      .subject = std::string(key),
                      .found = list == nullptr ? "nothing" : list->kind_name(),
                      .accepted = "a list of entries",
                      .hint = "the catalogue is damaged; restore this file",
                      .file = file.string()});
  }
  return list->as_array();
}

const facts::Value* entry_of(const facts::Array& entries, std::string_view id) {
  for (const facts::Value& entry : entries) {
    const facts::Value* own = entry.find("id");
    if (own != nullptr && own->as_text() != nullptr && *own->as_text() == id) return &entry;
  }
  return nullptr;
}

std::vector<std::string> ids_of(const facts::Array& entries) {
  std::vector<std::string> ids;
  for (const facts::Value& entry : entries) {
    const facts::Value* id = entry.find("id");
    if (id != nullptr && id->as_text() != nullptr) ids.push_back(*id->as_text());
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

std::vector<std::string> file_ids(const std::filesystem::path& folder) {
  std::vector<std::string> ids;
  std::error_code trouble;
  std::filesystem::recursive_directory_iterator at(folder, trouble);
  for (; !trouble && at != std::filesystem::recursive_directory_iterator(); at.increment(trouble)) {
    if (at->path().extension() != ".json") continue;
    std::filesystem::path relative = at->path().lexically_relative(folder);
    ids.push_back(relative.replace_extension().generic_string());
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

bool is_plain_id(std::string_view id) {
  if (id.empty() || id.size() > 200 || id.front() == '/' || id.back() == '/') return false;
  if (id.find("..") != std::string_view::npos || id.find("//") != std::string_view::npos) {
    return false;
  }
  return std::all_of(id.begin(), id.end(), [](char c) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    return letter || (c >= '0' && c <= '9') || std::string_view("._-+:/").contains(c);
  });
}

}  // namespace steelyard::catalog
