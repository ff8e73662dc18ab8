// How one value of each type is read, written and described: Leaf<T> for the types of facts/. A
// reader's error leaves `subject` empty or an index ("[2]"); the caller knows the key, the file and
// the line.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/quantity.h"
#include "base/suggest.h"
#include "codec/rule.h"
#include "codec/write_text.h"
#include "facts/enums.h"
#include "facts/job.h"
#include "facts/origin.h"
#include "facts/value.h"

namespace steelyard::codec {

// Specialised with: read(value, rule), write(t), schema(rule).
template <class T>
struct Leaf;

[[nodiscard]] Error wrong(const facts::Value& found, std::string accepted, std::string hint = {});
[[nodiscard]] std::string accepted_whole(const Rule& rule);
[[nodiscard]] std::string accepted_real(const Rule& rule);
[[nodiscard]] Result<std::int64_t> read_whole(const facts::Value& value, const Rule& rule);
[[nodiscard]] Result<double> read_real(const facts::Value& value, const Rule& rule);
[[nodiscard]] Result<std::string> read_name(const facts::Value& value,
                                            const std::vector<std::string>& known);
[[nodiscard]] facts::Value whole_schema(const Rule& rule);
[[nodiscard]] facts::Value real_schema(const Rule& rule);
[[nodiscard]] facts::Value enum_schema(const std::vector<std::string>& names);
[[nodiscard]] facts::Value list_schema(facts::Value items, const Rule& rule);

// The schema that also allows null.
[[nodiscard]] facts::Value nullable(facts::Value schema);

template <class Enum>
[[nodiscard]] std::vector<std::string> names_of(const Rule& rule = {}) {
  const auto& all = facts::EnumNames<Enum>::values;
  const std::size_t count = rule.first_names == 0 ? all.size() : rule.first_names;
  return {all.begin(), all.begin() + static_cast<std::ptrdiff_t>(count)};
}

template <>
struct Leaf<bool> {
  static Result<bool> read(const facts::Value& value, const Rule&) {
    if (const bool* b = value.as_bool()) return *b;
    return fail(wrong(value, "true or false"));
  }
  static facts::Value write(bool b) { return b; }
  static facts::Value schema(const Rule&) { return facts::Object{{"type", "boolean"}}; }
};

template <>
struct Leaf<std::int64_t> {
  static Result<std::int64_t> read(const facts::Value& value, const Rule& rule) {
    return read_whole(value, rule);
  }
  static facts::Value write(std::int64_t n) { return n; }
  static facts::Value schema(const Rule& rule) { return whole_schema(rule); }
};

template <>
struct Leaf<double> {
  static Result<double> read(const facts::Value& value, const Rule& rule) {
    return read_real(value, rule);
  }
  static facts::Value write(double x) { return x; }
  static facts::Value schema(const Rule& rule) { return real_schema(rule); }
};

template <>
struct Leaf<std::string> {
  static Result<std::string> read(const facts::Value& value, const Rule&) {
    if (const auto* text = value.as_text()) return *text;
    return fail(wrong(value, "text"));
  }
  static facts::Value write(const std::string& text) { return text; }
  static facts::Value schema(const Rule&) { return facts::Object{{"type", "string"}}; }
};

template <class Enum>
requires std::is_enum_v<Enum>
struct Leaf<Enum> {
  static Result<Enum> read(const facts::Value& value, const Rule& rule) {
    STEELYARD_TRY(name, read_name(value, names_of<Enum>(rule)));
    return *facts::from_name<Enum>(name);
  }
  static facts::Value write(Enum e) { return std::string(facts::name_of(e)); }
  static facts::Value schema(const Rule& rule) { return enum_schema(names_of<Enum>(rule)); }
};

template <class Tag>
struct Leaf<WholeQuantity<Tag>> {
  static Result<WholeQuantity<Tag>> read(const facts::Value& value, const Rule& rule) {
    STEELYARD_TRY(n, read_whole(value, rule));
    return WholeQuantity<Tag>(n);
  }
  static facts::Value write(WholeQuantity<Tag> n) { return n.value(); }
  static facts::Value schema(const Rule& rule) { return whole_schema(rule); }
};

template <class Tag>
struct Leaf<RealQuantity<Tag>> {
  static Result<RealQuantity<Tag>> read(const facts::Value& value, const Rule& rule) {
    STEELYARD_TRY(x, read_real(value, rule));
    return RealQuantity<Tag>(x);
  }
  static facts::Value write(RealQuantity<Tag> x) { return x.value(); }
  static facts::Value schema(const Rule& rule) { return real_schema(rule); }
};

// Absent is std::nullopt; an explicit null is no value, so it is refused. Written, absent is null.
template <class T>
struct Leaf<std::optional<T>> {
  static Result<std::optional<T>> read(const facts::Value& value, const Rule& rule) {
    STEELYARD_TRY(inner, Leaf<T>::read(value, rule));
    return std::optional<T>(std::move(inner));
  }
  static facts::Value write(const std::optional<T>& t) {
    return t ? Leaf<T>::write(*t) : facts::Value();
  }
  static facts::Value schema(const Rule& rule) { return Leaf<T>::schema(rule); }
};

// The rule's range holds for each item.
template <class T>
struct Leaf<std::vector<T>> {
  static Result<std::vector<T>> read(const facts::Value& value, const Rule& rule) {
    const auto* list = value.as_array();
    if (list == nullptr && rule.text_allowed && value.as_text() != nullptr) {
      STEELYARD_TRY(only, Leaf<T>::read(value, rule));
      return std::vector<T>{std::move(only)};
    }
    if (list == nullptr) {
      return fail(wrong(value, rule.text_allowed ? "a list, or one text" : "a list"));
    }
    const std::size_t most = most_items(rule);
    if (list->size() < rule.least_items || list->size() > most) {
      return fail({.code = ErrorCode::bad_input,
                   .subject = {},
                   .found = fmt::format("a list of {}", list->size()),
                   .accepted = rule.least_items == most
                                   ? fmt::format("a list of {}", most)
                                   : fmt::format("a list of {} to {}", rule.least_items, most),
                   .hint = {},
                   .file = {},
                   .line = {}});
    }
    std::vector<T> items;
    for (const auto& item : *list) {
      auto read_item = Leaf<T>::read(item, rule);
      if (!read_item) {
        Error error = std::move(read_item).error();
        error.subject = fmt::format("[{}]{}", items.size(), error.subject);
        return fail(std::move(error));
      }
      items.push_back(std::move(*read_item));
    }
    return items;
  }
  static facts::Value write(const std::vector<T>& list) {
    facts::Array out;
    for (const auto& item : list) out.push_back(Leaf<T>::write(item));
    return out;
  }
  static facts::Value schema(const Rule& rule) {
    facts::Value list = list_schema(Leaf<T>::schema(rule), rule);
    if (!rule.text_allowed) return list;
    return facts::Object{{"anyOf", facts::Array{std::move(list), Leaf<T>::schema(rule)}}};
  }

 private:
  static std::size_t most_items(const Rule& rule) {
    return rule.most_items == 0 ? static_cast<std::size_t>(kMostItems) : rule.most_items;
  }
};

// A free table: another program's keys, kept as they are. With rule.text_allowed also a name or
// path.
template <>
struct Leaf<facts::Value> {
  static Result<facts::Value> read(const facts::Value& value, const Rule& rule);
  static facts::Value write(const facts::Value& value) { return value; }
  static facts::Value schema(const Rule& rule);
};

// [model] config: absent, a name or path, or the configuration itself.
using ModelConfig = std::variant<std::monostate, std::string, facts::Value>;
template <>
struct Leaf<ModelConfig> {
  static Result<ModelConfig> read(const facts::Value& value, const Rule& rule);
  static facts::Value write(const ModelConfig& config);
  static facts::Value schema(const Rule& rule);
};

// PYTORCH_CUDA_ALLOC_CONF: "expandable_segments:True,roundup_power2_divisions:[256:1,>:8]".
template <>
struct Leaf<facts::AllocatorConf> {
  static Result<facts::AllocatorConf> read(const facts::Value& value, const Rule& rule);
  static facts::Value write(const facts::AllocatorConf& conf);
  static facts::Value schema(const Rule& rule);
};

// "none", ..., "full", { every = 2 } or { layers = 8, method = "block" }.
template <>
struct Leaf<facts::RecomputeKeys> {
  static Result<facts::RecomputeKeys> read(const facts::Value& value, const Rule& rule);
  static facts::Value write(const facts::RecomputeKeys& recompute);
  static facts::Value schema(const Rule& rule);
};

[[nodiscard]] const char* name_of(facts::Origin origin);
[[nodiscard]] std::vector<std::string> origin_names();
[[nodiscard]] std::vector<std::string> provenance_names();
[[nodiscard]] Result<facts::Provenance> read_provenance(const facts::Value& value);

// The parts of {"value": ..., "from": "measured", "note": "..."}; a bare value is given, null
// unknown.
struct KnownParts {
  const facts::Value* value = nullptr;  // null when unknown
  facts::Provenance from = facts::Provenance::unknown;
  std::string note;
};
[[nodiscard]] Result<KnownParts> read_known(const facts::Value& value);
[[nodiscard]] facts::Value write_known(facts::Value value, facts::Provenance from,
                                       const std::string& note);
[[nodiscard]] facts::Value known_schema(facts::Value figure);

template <class T>
struct Leaf<facts::Known<T>> {
  static Result<facts::Known<T>> read(const facts::Value& value, const Rule& rule) {
    STEELYARD_TRY(parts, read_known(value));
    facts::Known<T> known;
    known.from = parts.from;
    known.note = parts.note;
    if (parts.value != nullptr) {
      STEELYARD_TRY(figure, Leaf<T>::read(*parts.value, rule));
      known.value = std::move(figure);
    }
    return known;
  }
  static facts::Value write(const facts::Known<T>& known) {
    return write_known(known.value ? Leaf<T>::write(*known.value) : facts::Value(), known.from,
                       known.note);
  }
  static facts::Value schema(const Rule& rule) { return known_schema(Leaf<T>::schema(rule)); }
};

template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};
template <>
struct IsOptional<ModelConfig> : std::true_type {};

}  // namespace steelyard::codec
