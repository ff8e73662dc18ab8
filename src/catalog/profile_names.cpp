#include "catalog/profile_names.h"

#include <algorithm>
#include <vector>

#include "base/suggest.h"

namespace steelyard::catalog {

Result<void> known_name(const std::filesystem::path& catalog, const ProfileName& wanted) {
  std::vector<std::string> names;
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator(catalog / wanted.kind, failed)) {
    if (entry.path().extension() == ".toml") names.push_back(entry.path().stem().string());
  }
  if (std::ranges::find(names, wanted.name) != names.end()) return {};
  std::ranges::sort(names);
  const auto nearest = nearest_name(wanted.name, names);
  return fail(
      Error{.code = ErrorCode::unknown_name,
            .subject = std::string(wanted.subject),
            .found = wanted.name,
            .accepted = listed(names, names.size()),
            .hint = nearest ? "did you mean \"" + *nearest + "\"?" : std::string(wanted.hint),
            .file = "",
            .line = std::nullopt});
}

}  // namespace steelyard::catalog
