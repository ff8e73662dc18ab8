// The files under a folder, by what their names say of them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"

namespace steelyard::rehearse {

struct Found {
  std::vector<std::string> paths{};  // sorted
  std::uint64_t bytes = 0;
};

struct Listing {
  std::map<std::string, Found> by_format{};  // the names of OpenOptions::format
  std::vector<std::string> unreadable{};     // folders and links that could not be followed
};

// All below it; links to folders are followed, each folder once. Names that begin with a dot, and
// the unfinished files of the generator, are left out. Error: more than `max_files`, not there.
[[nodiscard]] Result<Listing> list_files(const std::filesystem::path& folder,
                                         std::uint64_t max_files);

// "images", "tar" ...; "raw" for a name that says nothing.
[[nodiscard]] const char* format_of_name(std::string_view name);

}  // namespace steelyard::rehearse
