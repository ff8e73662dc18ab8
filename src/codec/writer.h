// Visitors that turn a struct into a tree of values by its table of fields.
#pragma once

#include <string>
#include <string_view>

#include "codec/document.h"
#include "codec/leaf.h"

namespace steelyard::codec {

// Plain values: numbers in base units, null for what is unknown.
class Writer {
 public:
  template <class T>
  void key(std::string_view name, const T& field, const Rule&) {
    add(name, Leaf<T>::write(field));
  }

  void constant(std::string_view name, const char* text) { add(name, text); }

  template <class T, class Fields>
  void table(std::string_view name, T&& sub, Fields fields, const Rule&, const char* = nullptr) {
    Writer inner;
    fields(inner, sub);
    add(name, inner.take());
  }

  template <class T, class Fields>
  void optional_table(std::string_view name, std::optional<T>& sub, Fields fields,
                      const Rule& rule) {
    if (sub) {
      table(name, *sub, fields, rule);
    } else {
      add(name, {});
    }
  }

  template <class T, class Fields>
  void list(std::string_view name, std::vector<T>& items, Fields fields, const Rule&) {
    facts::Array array;
    for (auto& item : items) {
      Writer inner;
      fields(inner, item);
      array.push_back(inner.take());
    }
    add(name, std::move(array));
  }

  // A list that is only written when it is not empty.
  template <class T, class Fields>
  void optional_list(std::string_view name, std::vector<T>& items, Fields fields,
                     const Rule& rule) {
    if (!items.empty()) list(name, items, fields, rule);
  }

  template <class Make, class Describe>
  void made(std::string_view name, Make make, Describe) {
    add(name, make());
  }

  facts::Value take() { return std::move(members_); }

 private:
  void add(std::string_view name, facts::Value value) {
    members_.emplace_back(std::string(name), std::move(value));
  }

  facts::Object members_;
};

// Null for an empty list where the rule wants items: such a key was not given.
[[nodiscard]] facts::Value unless_absent(facts::Value value, const Rule& rule);

// Each key as {"value": ..., "origin": "job"}.
class OriginWriter {
 public:
  OriginWriter(const facts::Job& job, std::string path) : job_(job), path_(std::move(path)) {}

  template <class T>
  void key(std::string_view name, const T& field, const Rule& rule) {
    add(name, with_origin(name, unless_absent(Leaf<T>::write(field), rule)));
  }

  template <class T, class Fields>
  void table(std::string_view name, T& sub, Fields fields, const Rule&, const char* = nullptr) {
    OriginWriter inner(job_, joined(path_, name));
    fields(inner, sub);
    add(name, inner.take());
  }

  template <class T, class Fields>
  void optional_table(std::string_view name, std::optional<T>& sub, Fields fields,
                      const Rule& rule) {
    if (sub) {
      table(name, *sub, fields, rule);
    } else {
      add(name, with_origin(name, {}));
    }
  }

  template <class T, class Fields>
  void list(std::string_view name, std::vector<T>& items, Fields fields, const Rule& rule) {
    Writer plain;
    plain.list(name, items, fields, rule);
    add(name, with_origin(name, *plain.take().find(name)));
  }

  facts::Value take() { return std::move(members_); }

 private:
  facts::Value with_origin(std::string_view name, facts::Value value) const;
  void add(std::string_view name, facts::Value value) {
    members_.emplace_back(std::string(name), std::move(value));
  }

  const facts::Job& job_;
  std::string path_;
  facts::Object members_;
};

// The origin of a dotted key; one that nobody gave has its default.
[[nodiscard]] facts::KeyOrigin origin_of(const facts::Job& job, std::string_view path);

}  // namespace steelyard::codec
