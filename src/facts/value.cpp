#include "facts/value.h"

namespace steelyard::facts {

const Value* Value::find(std::string_view key) const {
  const Object* members = as_object();
  if (members == nullptr) return nullptr;
  for (const auto& [name, value] : *members) {
    if (name == key) return &value;
  }
  return nullptr;
}

void Value::set(std::string_view key, Value value) {
  if (is_null()) data_ = Object{};
  for (auto& [name, old] : std::get<Object>(data_)) {
    if (name == key) {
      old = std::move(value);
      return;
    }
  }
  std::get<Object>(data_).emplace_back(std::string(key), std::move(value));
}

const char* Value::kind_name() const {
  static constexpr const char* kNames[] = {"null", "true or false", "a whole number", "a number",
                                           "text", "a list",        "a table"};
  return kNames[data_.index()];
}

}  // namespace steelyard::facts
