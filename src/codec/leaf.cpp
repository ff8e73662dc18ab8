#include "codec/leaf.h"

#include <array>
#include <cmath>
#include <limits>

#include "base/format.h"

namespace steelyard::codec {
namespace {

constexpr double kLargestWhole = 9.2e18;  // below 2^63

constexpr std::array<const char*, 5> kOrigins = {"default", "job", "import", "model", "machine"};
constexpr auto& kProvenances = facts::EnumNames<facts::Provenance>::values;

std::string bound(double limit) {
  if (std::abs(limit) < 1e15 && limit == std::floor(limit)) {
    return grouped(static_cast<std::int64_t>(limit));
  }
  return fmt::format("{}", limit);
}

std::string range(const Rule& rule) {
  const bool from = std::isfinite(rule.low);
  const bool to = std::isfinite(rule.high);
  if (from && to) return fmt::format(" from {} to {}", bound(rule.low), bound(rule.high));
  if (from) return fmt::format(" of at least {}", bound(rule.low));
  if (to) return fmt::format(" of at most {}", bound(rule.high));
  return {};
}

// A limit in a schema: whole when it is whole.
facts::Value limit_value(double limit) {
  if (std::abs(limit) < 1e18 && limit == std::floor(limit)) {
    return static_cast<std::int64_t>(limit);
  }
  return limit;
}

facts::Value number_schema(const char* type, const Rule& rule) {
  facts::Object schema{{"type", type}};
  if (std::isfinite(rule.low)) schema.emplace_back("minimum", limit_value(rule.low));
  if (std::isfinite(rule.high)) schema.emplace_back("maximum", limit_value(rule.high));
  return schema;
}

}  // namespace

Error wrong(const facts::Value& found, std::string accepted, std::string hint) {
  return {.code = ErrorCode::bad_input,
          .subject = {},
          .found = shown(found),
          .accepted = std::move(accepted),
          .hint = std::move(hint),
          .file = {},
          .line = {}};
}

std::string accepted_whole(const Rule& rule) {
  return "a whole number" + range(rule);
}
std::string accepted_real(const Rule& rule) {
  return "a number" + range(rule);
}

Result<std::int64_t> read_whole(const facts::Value& value, const Rule& rule) {
  std::int64_t n = 0;
  if (const auto* whole = value.as_whole()) {
    n = *whole;
  } else if (const auto* real = value.as_real();
             real != nullptr && *real == std::floor(*real) && std::abs(*real) < kLargestWhole) {
    n = static_cast<std::int64_t>(*real);  // 1e6 is an ordinary way to write a million
  } else {
    return fail(wrong(value, accepted_whole(rule)));
  }
  const auto x = static_cast<double>(n);
  if (x < rule.low || x > rule.high) return fail(wrong(value, accepted_whole(rule)));
  return n;
}

Result<double> read_real(const facts::Value& value, const Rule& rule) {
  double x = std::numeric_limits<double>::quiet_NaN();
  if (const auto* whole = value.as_whole()) x = static_cast<double>(*whole);
  if (const auto* real = value.as_real()) x = *real;
  if (!std::isfinite(x) || x < rule.low || x > rule.high) {
    return fail(wrong(value, accepted_real(rule)));
  }
  return x;
}

Result<std::string> read_name(const facts::Value& value, const std::vector<std::string>& known) {
  const auto* name = value.as_text();
  if (name != nullptr) {
    for (const auto& candidate : known) {
      if (candidate == *name) return candidate;
    }
  }
  std::string hint;
  if (name != nullptr) {
    if (const auto near = nearest_name(*name, known)) {
      hint = fmt::format("did you mean \"{}\"?", *near);
    }
  }
  return fail(wrong(value, listed(known, known.size()), std::move(hint)));
}

facts::Value whole_schema(const Rule& rule) {
  return number_schema("integer", rule);
}
facts::Value real_schema(const Rule& rule) {
  return number_schema("number", rule);
}

facts::Value enum_schema(const std::vector<std::string>& names) {
  return facts::Object{{"type", "string"}, {"enum", Leaf<std::vector<std::string>>::write(names)}};
}

facts::Value list_schema(facts::Value items, const Rule& rule) {
  facts::Object schema{{"type", "array"}, {"items", std::move(items)}};
  if (rule.least_items > 0) {
    schema.emplace_back("minItems", static_cast<std::int64_t>(rule.least_items));
  }
  if (rule.most_items > 0) {
    schema.emplace_back("maxItems", static_cast<std::int64_t>(rule.most_items));
  }
  return schema;
}

facts::Value nullable(facts::Value schema) {
  return facts::Object{{"anyOf", facts::Array{std::move(schema), facts::Object{{"type", "null"}}}}};
}

Result<facts::Value> Leaf<facts::Value>::read(const facts::Value& value, const Rule& rule) {
  if (value.as_object() != nullptr) return value;
  if (!rule.text_allowed) return fail(wrong(value, "a table"));
  if (const auto* text = value.as_text(); text != nullptr && !text->empty()) return value;
  return fail(wrong(value, "a path (text) or a table"));
}

facts::Value Leaf<facts::Value>::schema(const Rule& rule) {
  if (!rule.text_allowed) return facts::Object{{"type", "object"}};
  return facts::Object{{"type", facts::Array{"string", "object"}}};
}

Result<ModelConfig> Leaf<ModelConfig>::read(const facts::Value& value, const Rule&) {
  if (value.as_object() != nullptr) return ModelConfig(value);
  if (const auto* text = value.as_text(); text != nullptr && !text->empty()) {
    return ModelConfig(*text);
  }
  return fail(wrong(value, "a catalogue id or path (text), or the configuration itself (a table)"));
}

facts::Value Leaf<ModelConfig>::write(const ModelConfig& config) {
  if (const auto* text = std::get_if<std::string>(&config)) return *text;
  if (const auto* table = std::get_if<facts::Value>(&config)) return *table;
  return {};
}

facts::Value Leaf<ModelConfig>::schema(const Rule&) {
  return facts::Object{{"type", facts::Array{"string", "object"}}};
}

const char* name_of(facts::Origin origin) {
  return kOrigins[static_cast<std::size_t>(origin)];
}

std::vector<std::string> origin_names() {
  return {kOrigins.begin(), kOrigins.end()};
}

std::vector<std::string> provenance_names() {
  return {kProvenances.begin(), kProvenances.end()};
}

Result<facts::Provenance> read_provenance(const facts::Value& value) {
  STEELYARD_TRY(name, read_name(value, provenance_names()));
  for (std::size_t i = 0; i < kProvenances.size(); ++i) {
    if (name == kProvenances[i]) return static_cast<facts::Provenance>(i);
  }
  return fail(wrong(value, "a provenance"));
}

Result<KnownParts> read_known(const facts::Value& value) {
  KnownParts parts;
  if (value.is_null()) return parts;
  const auto* members = value.as_object();
  if (members == nullptr) {
    parts.value = &value;
    parts.from = facts::Provenance::given;
    return parts;
  }
  for (const auto& [key, member] : *members) {
    if (key == "value") {
      if (!member.is_null()) parts.value = &member;
    } else if (key == "from") {
      STEELYARD_TRY(from, read_provenance(member));
      parts.from = from;
    } else if (key == "note" && member.as_text() != nullptr) {
      parts.note = *member.as_text();
    } else {
      return fail(wrong(key, "\"value\", \"from\" and \"note\" (text)"));
    }
  }
  if (value.find("value") == nullptr) {
    return fail(wrong(value, "a number, null, or a table with \"value\""));
  }
  // A value without "from" is as good as a bare one: the person said so.
  if (value.find("from") == nullptr && parts.value != nullptr) {
    parts.from = facts::Provenance::given;
  }
  return parts;
}

facts::Value write_known(facts::Value value, facts::Provenance from, const std::string& note) {
  facts::Object known{{"value", std::move(value)}, {"from", std::string(facts::name_of(from))}};
  if (!note.empty()) known.emplace_back("note", note);
  return known;
}

facts::Value known_schema(facts::Value figure) {
  facts::Object properties{{"value", nullable(figure)},
                           {"from", enum_schema(provenance_names())},
                           {"note", facts::Object{{"type", "string"}}}};
  facts::Object table{{"type", "object"},
                      {"properties", std::move(properties)},
                      {"required", facts::Array{"value"}},
                      {"additionalProperties", false}};
  return facts::Object{{"anyOf", facts::Array{std::move(figure), facts::Object{{"type", "null"}},
                                              std::move(table)}}};
}

}  // namespace steelyard::codec
