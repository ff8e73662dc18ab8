// One entry of a catalogue file, read key by key. A missing key or a wrong type is remembered (the
// first one) and reported by `check`; null is unknown, never zero.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/quantity.h"
#include "facts/origin.h"
#include "facts/value.h"

namespace steelyard::catalog {

class Fields {
 public:
  // `entry` must outlive this object; `subject` names it in messages ("h100-sxm-80gb").
  Fields(const facts::Value& entry, std::string subject, std::filesystem::path file);

  // Every key must be there; dots lead into tables ("host.ram_gib"), and behind a table that is
  // null everything is null. Numbers are finite and not negative.
  [[nodiscard]] std::optional<double> real(std::string_view path);
  [[nodiscard]] std::optional<std::int64_t> whole(std::string_view path);
  [[nodiscard]] std::string text(std::string_view path);  // null: ""
  [[nodiscard]] std::vector<std::string> texts(std::string_view path);
  [[nodiscard]] bool is_null(std::string_view path);

  // The number times `unit`, from the catalogue; unknown when null.
  template <class Quantity>
  [[nodiscard]] facts::Known<Quantity> known(std::string_view path, double unit);

  // What a value of the catalogue is worth: a note when the entry says that it was not re-read.
  [[nodiscard]] std::string note_for(std::string_view path);

  [[nodiscard]] Result<void> check() const;
  void complain(std::string_view path, std::string found, std::string accepted);

 private:
  const facts::Value* find(std::string_view path);

  const facts::Value* entry_;
  std::string subject_;
  std::filesystem::path file_;
  std::optional<Error> first_error_;
};

template <class Quantity>
facts::Known<Quantity> Fields::known(std::string_view path, double unit) {
  const std::optional<double> number = real(path);
  if (!number) return {};
  const double scaled = *number * unit;
  if constexpr (requires(Quantity quantity) { quantity.real(); }) {
    // A whole quantity must fit into 64 bits.
    if (scaled > 9e18) {
      complain(path, "a number beyond 64 bits", "a smaller one");
      return {};
    }
    return {Quantity(checked_round(scaled)), facts::Provenance::catalogue, note_for(path)};
  } else {
    return {Quantity(scaled), facts::Provenance::catalogue, note_for(path)};
  }
}

}  // namespace steelyard::catalog
