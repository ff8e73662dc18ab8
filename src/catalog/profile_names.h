// Names that users give and the catalogue knows as files: KIND/NAME.toml.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/error.h"

namespace steelyard::catalog {

struct ProfileName {
  std::string_view kind;  // the folder of the catalogue
  std::string name;
  std::string_view subject;  // the key that holds it
  std::string_view hint;
};

// Errors: unknown_name, with the names that there are.
[[nodiscard]] Result<void> known_name(const std::filesystem::path& catalog,
                                      const ProfileName& wanted);

}  // namespace steelyard::catalog
