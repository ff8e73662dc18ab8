#include "base/error.h"

#include <fmt/format.h>

namespace steelyard {

std::string to_text(const Error& error) {
  std::string text;
  if (!error.file.empty()) text += error.file;
  if (error.line) text += fmt::format(":{}", *error.line);
  if (!text.empty()) text += ": ";
  text += error.subject;
  if (!error.found.empty()) text += fmt::format(": found {}", error.found);
  if (!error.accepted.empty()) text += fmt::format("; accepted: {}", error.accepted);
  if (!error.hint.empty()) text += fmt::format("\n  hint: {}", error.hint);
  return text;
}

const char* name_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::bad_input: return "bad_input";
    case ErrorCode::unknown_name: return "unknown_name";
    case ErrorCode::not_supported: return "not_supported";
    case ErrorCode::missing_value: return "missing_value";
    case ErrorCode::impossible_combination: return "impossible_combination";
    case ErrorCode::unreadable: return "unreadable";
    case ErrorCode::too_large: return "too_large";
    case ErrorCode::internal: return "internal";
  }
  return "internal";
}

}  // namespace steelyard
