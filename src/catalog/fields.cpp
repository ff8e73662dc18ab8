#include "catalog/fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace steelyard::catalog {
namespace {

std::string_view last_part(std::string_view path) {
  const std::size_t dot = path.rfind('.');
  return dot == std::string_view::npos ? path : path.substr(dot + 1);
}

}  // namespace

Fields::Fields(const facts::Value& entry, std::string subject, std::filesystem::path file)
    : entry_(&entry), subject_(std::move(subject)), file_(std::move(file)) {}

void Fields::complain(std::string_view path, std::string found, std::string accepted) {
  if (first_error_) return;
  first_error_ = Error{.code = ErrorCode::bad_input,
                       .subject = fmt::format("{}: {}", subject_, path),
                       .found = std::move(found),
                       .accepted = std::move(accepted),
                       .hint = "the catalogue is damaged; restore this file",
                       .file = file_.string()};
}

// Null where the value is null (or lies behind a null table) and where an error was noted.
const facts::Value* Fields::find(std::string_view path) {
  const facts::Value* at = entry_;
  std::string_view rest = path;
  while (!rest.empty()) {
    if (at->is_null()) return nullptr;
    const std::size_t dot = rest.find('.');
    at = at->find(rest.substr(0, dot));
    if (at == nullptr) {
      complain(path, "nothing", "the key; null when the value is unknown");
      return nullptr;
    }
    rest = dot == std::string_view::npos ? std::string_view() : rest.substr(dot + 1);
  }
  return at->is_null() ? nullptr : at;
}

std::optional<double> Fields::real(std::string_view path) {
  const facts::Value* value = find(path);
  if (value == nullptr) return std::nullopt;
  double number = 0.0;
  if (const double* real = value->as_real()) {
    number = *real;
  } else if (const std::int64_t* whole = value->as_whole()) {
    number = static_cast<double>(*whole);
  } else {
    complain(path, value->kind_name(), "a number or null");
    return std::nullopt;
  }
  if (!std::isfinite(number) || number < 0.0) {
    complain(path, fmt::format("{}", number), "a number that is not negative, or null");
    return std::nullopt;
  }
  return number;
}

std::optional<std::int64_t> Fields::whole(std::string_view path) {
  const facts::Value* value = find(path);
  if (value == nullptr) return std::nullopt;
  const std::int64_t* number = value->as_whole();
  if (number == nullptr || *number < 0) {
    complain(path, number == nullptr ? value->kind_name() : fmt::format("{}", *number),
             "a whole number that is not negative, or null");
    return std::nullopt;
  }
  return *number;
}

std::string Fields::text(std::string_view path) {
  const facts::Value* value = find(path);
  if (value == nullptr) return "";
  const std::string* text = value->as_text();
  if (text == nullptr) {
    complain(path, value->kind_name(), "text or null");
    return "";
  }
  return *text;
}

std::vector<std::string> Fields::texts(std::string_view path) {
  const facts::Value* value = find(path);
  std::vector<std::string> texts;
  if (value == nullptr) return texts;
  const facts::Array* items = value->as_array();
  if (items == nullptr) {
    complain(path, value->kind_name(), "a list of texts");
    return texts;
  }
  for (const facts::Value& item : *items) {
    if (const std::string* text = item.as_text()) {
      texts.push_back(*text);
    } else {
      complain(path, fmt::format("{} in the list", item.kind_name()), "a list of texts");
    }
  }
  return texts;
}

bool Fields::is_null(std::string_view path) {
  return find(path) == nullptr;
}

std::string Fields::note_for(std::string_view path) {
  const facts::Value* unverified = entry_->find("unverified_fields");
  const facts::Array* names = unverified == nullptr ? nullptr : unverified->as_array();
  if (names == nullptr) return "";
  const bool recalled = std::any_of(names->begin(), names->end(), [&](const facts::Value& name) {
    return name.as_text() != nullptr && *name.as_text() == last_part(path);
  });
  return recalled ? "recalled, not re-read in a source" : "";
}

Result<void> Fields::check() const {
  if (first_error_) return fail(*first_error_);
  return {};
}

}  // namespace steelyard::catalog
