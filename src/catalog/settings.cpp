#include "catalog/settings.h"

#include <fmt/format.h>

#include <cmath>

#include "base/suggest.h"

namespace steelyard::catalog {

const std::vector<Settings::Unit>& Settings::size_units() {
  static const std::vector<Unit> kUnits = {
      {"_bytes", 1.0}, {"_kib", 1024.0}, {"_mib", 1024.0 * 1024.0}, {"_gib", 1073741824.0}};
  return kUnits;
}

Settings::Settings(const facts::Value& table, std::filesystem::path file)
    : table_(&table), file_(std::move(file)) {
  if (table.as_object() == nullptr) complain("", table.kind_name(), "a table");
}

void Settings::complain(std::string_view key, std::string found, std::string accepted) {
  if (first_error_) return;
  first_error_ = Error{.code = ErrorCode::bad_input,
                       .subject = std::string(key),
                       .found = std::move(found),
                       .accepted = std::move(accepted),
                       .file = file_.string()};
}

const facts::Value* Settings::find(std::string_view key) {
  read_.emplace(key);
  const facts::Value* value = table_->find(key);
  if (value == nullptr) complain(key, "nothing", "the key");
  return value;
}

std::optional<double> Settings::number(std::string_view key, const facts::Value& value) {
  double number = 0.0;
  if (const double* real = value.as_real()) {
    number = *real;
  } else if (const std::int64_t* whole = value.as_whole()) {
    number = static_cast<double>(*whole);
  } else {
    complain(key, value.kind_name(), "a number");
    return std::nullopt;
  }
  if (!std::isfinite(number) || number < 0.0) {
    complain(key, fmt::format("{}", number), "a number that is not negative");
    return std::nullopt;
  }
  return number;
}

std::optional<double> Settings::scaled(std::string_view member, const std::vector<Unit>& units) {
  std::vector<std::string> names;
  for (const Unit& unit : units) {
    std::string key = fmt::format("{}{}", member, unit.suffix);
    if (const facts::Value* value = table_->find(key)) {
      read_.insert(key);
      const std::optional<double> found = number(key, *value);
      if (found) return *found * unit.factor;
      return std::nullopt;
    }
    names.push_back(std::move(key));
  }
  complain(member, "nothing", "one of the keys " + listed(names));
  return std::nullopt;
}

bool Settings::has_bytes(std::string_view member) const {
  for (const Unit& unit : size_units()) {
    if (has(fmt::format("{}{}", member, unit.suffix))) return true;
  }
  return false;
}

Bytes Settings::bytes(std::string_view member) {
  const double size = scaled(member, size_units()).value_or(0.0);
  if (size > 9e18) {
    complain(member, fmt::format("{} bytes", size), "a size below 2^63 bytes");
    return {};
  }
  return Bytes(checked_round(size));
}

Seconds Settings::seconds(std::string_view member) {
  static const std::vector<Unit> kUnits = {
      {"_seconds", 1.0}, {"_ms", 1e-3}, {"_us", 1e-6}, {"_ns", 1e-9}};
  return Seconds(scaled(member, kUnits).value_or(0.0));
}

BytesPerSecond Settings::rate(std::string_view member) {
  static const std::vector<Unit> kUnits = {{"_gb_per_s", 1e9}};
  return BytesPerSecond(scaled(member, kUnits).value_or(0.0));
}

Ratio Settings::ratio(std::string_view member) {
  static const std::vector<Unit> kUnits = {{"_ratio", 1.0}};
  return Ratio(scaled(member, kUnits).value_or(0.0));
}

Tokens Settings::tokens(std::string_view member) {
  return Tokens(whole(fmt::format("{}_tokens", member)));
}

double Settings::real(std::string_view key) {
  const facts::Value* value = find(key);
  return value == nullptr ? 0.0 : number(key, *value).value_or(0.0);
}

std::int64_t Settings::whole(std::string_view key) {
  const facts::Value* value = find(key);
  if (value == nullptr) return 0;
  const std::int64_t* number = value->as_whole();
  if (number == nullptr || *number < 0) {
    complain(key, number == nullptr ? value->kind_name() : fmt::format("{}", *number),
             "a whole number that is not negative");
    return 0;
  }
  return *number;
}

bool Settings::flag(std::string_view key) {
  const facts::Value* value = find(key);
  if (value == nullptr) return false;
  if (value->as_bool() == nullptr) {
    complain(key, value->kind_name(), "true or false");
    return false;
  }
  return *value->as_bool();
}

std::string Settings::text(std::string_view key) {
  const facts::Value* value = find(key);
  if (value == nullptr) return "";
  if (value->as_text() == nullptr) {
    complain(key, value->kind_name(), "text");
    return "";
  }
  return *value->as_text();
}

std::vector<std::string> Settings::texts(std::string_view key) {
  const facts::Value* value = find(key);
  std::vector<std::string> texts;
  if (value == nullptr) return texts;
  if (value->as_array() == nullptr) {
    complain(key, value->kind_name(), "a list of texts");
    return texts;
  }
  for (const facts::Value& item : *value->as_array()) {
    if (item.as_text() == nullptr) {
      complain(key, fmt::format("{} in the list", item.kind_name()), "a list of texts");
    } else {
      texts.push_back(*item.as_text());
    }
  }
  return texts;
}

const facts::Value& Settings::table(std::string_view key) {
  static const facts::Value kEmpty{facts::Object{}};
  read_.emplace(key);
  const facts::Value* value = table_->find(key);
  if (value == nullptr) return kEmpty;
  if (value->as_object() == nullptr) {
    complain(key, value->kind_name(), "a table");
    return kEmpty;
  }
  return *value;
}

Result<void> Settings::finish() const {
  if (first_error_) return fail(*first_error_);
  if (const facts::Object* members = table_->as_object()) {
    for (const auto& [key, value] : *members) {
      if (read_.contains(key)) continue;
      const std::vector<std::string> known(read_.begin(), read_.end());
      const std::optional<std::string> near = nearest_name(key, known);
      return fail(Error{.code = ErrorCode::unknown_name,
                        .subject = key,
                        .found = "a key that nothing reads",
                        .accepted = listed(known, 40),
                        .hint = near ? fmt::format("did you mean {}?", *near) : "",
                        .file = file_.string()});
    }
  }
  return {};
}

}  // namespace steelyard::catalog
