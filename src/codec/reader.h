// The visitor that fills a struct from a table of values by its table of fields. It checks types
// and ranges, refuses unknown keys (with the nearest known one), records where each key came from,
// and keeps the complaint that stands first in the file.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "codec/document.h"
#include "codec/leaf.h"

namespace steelyard::codec {

using Origins = std::map<std::string, facts::KeyOrigin, std::less<>>;

// What all tables of one file share while it is read.
struct Reading {
  std::string file;                                              // appears in messages
  const Lines* lines = nullptr;                                  // null: no lines known
  const std::set<std::string, std::less<>>* settings = nullptr;  // keys given by --set
  Origins* origins = nullptr;                                    // filled when not null
  const std::vector<std::string>* all_keys = nullptr;  // dotted, for hints to other tables
  std::optional<Error> error;

  [[nodiscard]] std::optional<int> line(std::string_view path) const;
  [[nodiscard]] bool is_setting(std::string_view path) const;
  // Adds file and line, and keeps the error if it is the first in the file.
  void complain(std::string path, Error error);
  void came_from_job(const std::string& path);
  [[nodiscard]] Result<void> outcome() const;
};

class Reader {
 public:
  // `members` may be null: a table that is not there.
  Reader(Reading& reading, const facts::Object* members, std::string path)
      : reading_(reading), members_(members), path_(std::move(path)) {}

  template <class T>
  void key(std::string_view name, T& field, const Rule& rule) {
    const facts::Value* value = take(name, rule);
    if (value == nullptr || (value->is_null() && rule.null_allowed)) return;
    const std::string path = joined(path_, name);
    auto read = Leaf<T>::read(*value, rule);
    if (!read) {
      reading_.complain(path + read.error().subject, read.error());
      return;
    }
    field = std::move(*read);
    reading_.came_from_job(path);
  }

  // A key that always says the same, such as the schema of the file.
  void constant(std::string_view name, const char* expected);

  // `shorthand`: text in place of the table means the table with that one key.
  template <class T, class Fields>
  void table(std::string_view name, T& sub, Fields fields, const Rule& rule,
             const char* shorthand = nullptr) {
    const facts::Value* value = take(name, rule);
    if (value == nullptr) return;
    read_table(*value, joined(path_, name), sub, fields, shorthand);
  }

  template <class T, class Fields>
  void optional_table(std::string_view name, std::optional<T>& sub, Fields fields,
                      const Rule& rule) {
    const facts::Value* value = take(name, rule);
    if (value == nullptr) return;
    if (value->is_null() && rule.null_allowed) return;
    sub.emplace();
    read_table(*value, joined(path_, name), *sub, fields, nullptr);
  }

  template <class T, class Fields>
  void list(std::string_view name, std::vector<T>& items, Fields fields, const Rule& rule) {
    const facts::Value* value = take(name, rule);
    if (value == nullptr) return;
    const std::string path = joined(path_, name);
    const auto* array = value->as_array();
    if (array == nullptr) {
      reading_.complain(path, wrong(*value, "a list of tables"));
      return;
    }
    items.clear();
    for (const auto& item : *array) {
      const std::string inner = fmt::format("{}[{}]", path, items.size());
      read_table(item, inner, items.emplace_back(), fields, nullptr);
    }
    reading_.came_from_job(path);
  }

  // Call once after all fields: complains about the keys that no field took.
  void finish();

 private:
  // The member of that name, which is then known; complains when it is required and absent.
  const facts::Value* take(std::string_view name, const Rule& rule);

  template <class T, class Fields>
  void read_table(const facts::Value& value, const std::string& path, T& sub, Fields& fields,
                  const char* shorthand) {
    const auto* members = value.as_object();
    const facts::Object short_form = {{shorthand == nullptr ? "" : shorthand, value}};
    if (shorthand != nullptr && value.as_text() != nullptr) members = &short_form;
    if (members == nullptr) {
      reading_.complain(path, wrong(value, shorthand == nullptr ? "a table" : "a name or a table"));
      return;
    }
    Reader inner(reading_, members, path);
    fields(inner, sub);
    inner.finish();
    if (path.find('.') != std::string::npos) reading_.came_from_job(path);
  }

  Reading& reading_;
  const facts::Object* members_;
  std::string path_;
  std::vector<std::string> known_;
};

}  // namespace steelyard::codec
