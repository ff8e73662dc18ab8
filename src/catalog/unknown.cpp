#include "catalog/unknown.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "base/suggest.h"

namespace steelyard::catalog {
namespace {

constexpr std::size_t kNamesShown = 5;

std::string simplified(std::string_view name) {
  const std::size_t slash = name.rfind('/');
  std::string plain(slash == std::string_view::npos ? name : name.substr(slash + 1));
  std::transform(plain.begin(), plain.end(), plain.begin(), [](char c) {
    if (c >= 'A' && c <= 'Z') return static_cast<char>(c - 'A' + 'a');
    return c == '_' || c == ' ' ? '-' : c;
  });
  return plain;
}

// The nearest name first, then the ids that contain the name or are contained in it.
std::vector<std::string> near_names(std::string_view name, std::span<const std::string> ids) {
  std::vector<std::string> near;
  const auto add = [&near](const std::string& id) {
    if (std::find(near.begin(), near.end(), id) == near.end()) near.push_back(id);
  };
  const std::string plain = simplified(name);
  if (auto best = nearest_name(name, ids)) add(*best);
  if (auto best = nearest_name(plain, ids)) add(*best);
  for (const std::string& id : ids) {
    if (near.size() >= kNamesShown || plain.size() < 2) break;
    const std::string other = simplified(id);
    if (other.find(plain) != std::string::npos || plain.find(other) != std::string::npos) add(id);
  }
  return near;
}

}  // namespace

Error unknown(std::string_view subject, std::string_view name, std::string_view kind,
              std::span<const std::string> ids) {
  const std::vector<std::string> near = near_names(name, ids);
  const std::string command = fmt::format("`steelyard list {}` shows all {}", kind, ids.size());
  return Error{
      .code = ErrorCode::unknown_name,
      .subject = std::string(subject),
      .found = std::string(name),
      .accepted = fmt::format("an id of the catalogue's {}", kind),
      .hint = near.empty() ? command : fmt::format("did you mean {}? {}", listed(near), command)};
}

}  // namespace steelyard::catalog
