#include "catalog/merge.h"

namespace steelyard::catalog {
namespace {

// The member of that name, made null first when there is none; `base` becomes an object.
facts::Value& member(facts::Value& base, std::string_view key) {
  if (base.as_object() == nullptr) base = facts::Value(facts::Object{});
  if (base.find(key) == nullptr) base.set(key, facts::Value());
  for (auto& [name, value] : *base.as_object()) {
    if (name == key) return value;
  }
  return base;  // not reached: the key was set above
}

}  // namespace

void set_path(facts::Value& base, std::string_view path, const facts::Value& value) {
  const std::size_t dot = path.find('.');
  if (dot == std::string_view::npos || base.find(path) != nullptr) {
    merge(member(base, path), value);
  } else {
    set_path(member(base, path.substr(0, dot)), path.substr(dot + 1), value);
  }
}

void merge(facts::Value& base, const facts::Value& over) {
  const facts::Object* members = over.as_object();
  if (members == nullptr || base.as_object() == nullptr) {
    if (members == nullptr) {
      base = over;
      return;
    }
    base = facts::Value(facts::Object{});
  }
  for (const auto& [key, value] : *members) set_path(base, key, value);
}

}  // namespace steelyard::catalog
