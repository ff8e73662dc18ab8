// An error as a part of a table.
#pragma once

#include <string>

#include "base/error.h"

namespace steelyard::search {

[[nodiscard]] inline std::string one_line(const Error& error) {
  std::string text = error.subject;
  if (!error.found.empty()) text += ": found " + error.found;
  if (!error.accepted.empty()) text += "; accepted: " + error.accepted;
  return text;
}

}  // namespace steelyard::search
