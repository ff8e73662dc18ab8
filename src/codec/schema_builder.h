// The visitor that describes a struct as a JSON Schema by its table of fields. The keywords used
// mean the same in the drafts from 7 to 2020-12.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>

#include "codec/leaf.h"

namespace steelyard::codec {

enum class SchemaMode {
  file,     // what a person writes: keys may be left out, unknown keys are wrong
  written,  // what the program writes: every key is there, null is unknown
  origins,  // as written, each value as {"value": ..., "origin": ...}
};

class SchemaBuilder {
 public:
  explicit SchemaBuilder(SchemaMode mode) : mode_(mode) {}

  template <class T>
  void key(std::string_view name, const T& field, const Rule& rule) {
    facts::Value schema = Leaf<T>::schema(rule);
    constexpr bool kMayBeNull = IsOptional<T>::value || std::is_same_v<T, facts::Value>;
    const bool absent_list = rule.least_items > 0;  // written as null, see unless_absent
    if (mode_ == SchemaMode::file) {
      if (rule.null_allowed) schema = nullable(std::move(schema));
      if (!kMayBeNull && !rule.required && !absent_list) {
        if constexpr (HasDefault<T>::value) schema.set("default", Leaf<T>::write(field));
      }
    } else if (kMayBeNull || absent_list) {
      schema = nullable(std::move(schema));
    }
    add(name, with_origin(std::move(schema)), rule);
  }

  void constant(std::string_view name, const char* text) {
    add(name, facts::Object{{"const", text}}, required(about("kind and version of this file")));
  }

  template <class T, class Fields>
  void table(std::string_view name, T& sub, Fields fields, const Rule& rule,
             const char* shorthand = nullptr) {
    SchemaBuilder inner(mode_);
    fields(inner, sub);
    facts::Value schema = inner.take();
    if (shorthand != nullptr && mode_ == SchemaMode::file) {
      facts::Value name_schema = *schema.find("properties")->find(shorthand);
      schema = facts::Object{{"anyOf", facts::Array{std::move(name_schema), std::move(schema)}}};
    }
    add(name, std::move(schema), rule);
  }

  template <class T, class Fields>
  void optional_table(std::string_view name, std::optional<T>&, Fields fields, const Rule& rule) {
    T sub;
    SchemaBuilder inner(mode_);
    fields(inner, sub);
    facts::Value schema = inner.take();
    if (mode_ == SchemaMode::origins) {
      facts::Value nothing = with_origin(facts::Object{{"type", "null"}});
      schema = facts::Object{{"anyOf", facts::Array{std::move(schema), std::move(nothing)}}};
    } else if (mode_ == SchemaMode::written || rule.null_allowed) {
      schema = nullable(std::move(schema));
    }
    add(name, std::move(schema), rule);
  }

  template <class T, class Fields>
  void list(std::string_view name, std::vector<T>&, Fields fields, const Rule& rule) {
    T item;
    SchemaBuilder inner(mode_ == SchemaMode::origins ? SchemaMode::written : mode_);
    fields(inner, item);
    add(name, with_origin(list_schema(inner.take(), rule)), rule);
  }

  // A list that is only written when it is not empty.
  template <class T, class Fields>
  void optional_list(std::string_view name, std::vector<T>& items, Fields fields,
                     const Rule& rule) {
    list(name, items, fields, rule);
    required_.pop_back();
  }

  template <class Make, class Describe>
  void made(std::string_view name, Make, Describe describe) {
    add(name, describe(), about(""));
  }

  facts::Value take();

 private:
  // Lists of tables and free tables have no default worth stating.
  template <class T>
  struct HasDefault : std::true_type {};
  template <class T>
  struct HasDefault<facts::Known<T>> : std::false_type {};

  [[nodiscard]] facts::Value with_origin(facts::Value schema) const;
  void add(std::string_view name, facts::Value schema, const Rule& rule);

  SchemaMode mode_;
  facts::Object properties_;
  facts::Array required_;
};

}  // namespace steelyard::codec
