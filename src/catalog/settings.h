// One table of constants (TOML): every key is needed, none may be left over, and each carries its
// unit as a suffix: "system_gib" is the member `system` in GiB. Sizes: _bytes, _kib, _mib, _gib;
// times: _seconds, _ms, _us, _ns; rates: _gb_per_s; shares: _ratio; counts: _tokens or none.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/quantity.h"
#include "facts/value.h"

namespace steelyard::catalog {

class Settings {
 public:
  // `table` must outlive this object.
  Settings(const facts::Value& table, std::filesystem::path file);

  [[nodiscard]] Bytes bytes(std::string_view member);
  [[nodiscard]] Seconds seconds(std::string_view member);
  [[nodiscard]] BytesPerSecond rate(std::string_view member);
  [[nodiscard]] Ratio ratio(std::string_view member);
  [[nodiscard]] Tokens tokens(std::string_view member);
  // Without a unit of their own, or with it in the member's name.
  [[nodiscard]] double real(std::string_view key);
  [[nodiscard]] std::int64_t whole(std::string_view key);
  [[nodiscard]] bool flag(std::string_view key);
  [[nodiscard]] std::string text(std::string_view key);
  [[nodiscard]] std::vector<std::string> texts(std::string_view key);
  // A table, marked as read; an empty object when there is none.
  [[nodiscard]] const facts::Value& table(std::string_view key);
  [[nodiscard]] bool has(std::string_view key) const { return table_->find(key) != nullptr; }
  // Whether the member is there with any unit of a size.
  [[nodiscard]] bool has_bytes(std::string_view member) const;

  // The first complaint, or the first key that nobody asked for.
  [[nodiscard]] Result<void> finish() const;

 private:
  struct Unit {
    std::string_view suffix;
    double factor;
  };
  std::optional<double> scaled(std::string_view member, const std::vector<Unit>& units);
  const facts::Value* find(std::string_view key);
  std::optional<double> number(std::string_view key, const facts::Value& value);
  void complain(std::string_view key, std::string found, std::string accepted);

  static const std::vector<Unit>& size_units();

  const facts::Value* table_;
  std::filesystem::path file_;
  std::set<std::string, std::less<>> read_;
  std::optional<Error> first_error_;
};

}  // namespace steelyard::catalog
