// A plain tree of values: what JSON, TOML and YAML have in common. Codecs fill it; the predicting
// rooms read it (a model's own configuration, another tool's arguments) without knowing any format.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace steelyard::facts {

class Value;
using Array = std::vector<Value>;
// Keys in the order of the file, so that a message or a dump follows what the person wrote.
using Object = std::vector<std::pair<std::string, Value>>;

class Value {
 public:
  Value() = default;  // null
  Value(bool b) : data_(b) {}
  Value(std::int64_t n) : data_(n) {}
  Value(int n) : data_(std::int64_t{n}) {}
  Value(double x) : data_(x) {}
  Value(std::string text) : data_(std::move(text)) {}
  Value(const char* text) : data_(std::string(text)) {}
  Value(Array items) : data_(std::move(items)) {}
  Value(Object members) : data_(std::move(members)) {}

  [[nodiscard]] bool is_null() const { return std::holds_alternative<std::monostate>(data_); }
  [[nodiscard]] const bool* as_bool() const { return std::get_if<bool>(&data_); }
  [[nodiscard]] const std::int64_t* as_whole() const { return std::get_if<std::int64_t>(&data_); }
  [[nodiscard]] const double* as_real() const { return std::get_if<double>(&data_); }
  [[nodiscard]] const std::string* as_text() const { return std::get_if<std::string>(&data_); }
  [[nodiscard]] const Array* as_array() const { return std::get_if<Array>(&data_); }
  [[nodiscard]] const Object* as_object() const { return std::get_if<Object>(&data_); }
  [[nodiscard]] Object* as_object() { return std::get_if<Object>(&data_); }

  // The member of that name, or null when there is none or this is no object.
  [[nodiscard]] const Value* find(std::string_view key) const;
  // Sets or replaces a member; turns null into an object first.
  void set(std::string_view key, Value value);

  // "a whole number", "text", ... for messages.
  [[nodiscard]] const char* kind_name() const;

  friend bool operator==(const Value&, const Value&) = default;

 private:
  std::variant<std::monostate, bool, std::int64_t, double, std::string, Array, Object> data_;
};

}  // namespace steelyard::facts
