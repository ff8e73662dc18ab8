// The data files of one catalogue folder, each parsed at most once; safe to use from several
// threads.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "facts/value.h"

namespace steelyard::catalog {

class Files {
 public:
  explicit Files(std::filesystem::path folder) : folder_(std::move(folder)) {}

  // `relative` is within the folder: "gpus.json".
  [[nodiscard]] Result<std::shared_ptr<const facts::Value>> read(const std::string& relative);

  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }

 private:
  std::filesystem::path folder_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<const facts::Value>> parsed_;
};

// The list `key` of a file such as gpus.json: {"schema": ..., "gpus": [...]}.
[[nodiscard]] Result<const facts::Array*> list_of(const facts::Value& file_content,
                                                  std::string_view key,
                                                  const std::filesystem::path& file);
// The entry whose "id" is `id`; null when there is none.
[[nodiscard]] const facts::Value* entry_of(const facts::Array& entries, std::string_view id);
[[nodiscard]] std::vector<std::string> ids_of(const facts::Array& entries);

// The ids of the .json files under a folder: "qwen2-7b", in sub-folders "torchvision/resnet50";
// sorted.
[[nodiscard]] std::vector<std::string> file_ids(const std::filesystem::path& folder);
// Whether a name can be such an id: letters, digits, . _ - + : and single slashes, no "..".
[[nodiscard]] bool is_plain_id(std::string_view id);

}  // namespace steelyard::catalog
