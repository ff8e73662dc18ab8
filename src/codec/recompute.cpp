// train.recompute: a name or one of two tables.
#include "codec/leaf.h"

namespace steelyard::codec {
namespace {

using facts::RecomputeKeys;
using facts::RecomputeMethod;
using facts::RecomputeMode;

constexpr Rule kLayerCount = between(1, kMostLayers, "");

std::string accepted_forms() {
  return listed(names_of<RecomputeMode>()) +
         ", { every = N } or { layers = N, method = \"uniform\" or \"block\" }";
}

Error of_key(Error error, const std::string& key) {
  error.subject = "." + key;
  return error;
}

Result<void> read_member(const std::string& key, const facts::Value& value, RecomputeKeys& into) {
  const Rule rule = kLayerCount;
  if (key == "every" || key == "layers") {
    auto count = read_whole(value, rule);
    if (!count) return fail(of_key(std::move(count).error(), key));
    (key == "every" ? into.every : into.layers) = *count;
    return {};
  }
  if (key == "method") {
    auto method = Leaf<RecomputeMethod>::read(value, rule);
    if (!method) return fail(of_key(std::move(method).error(), key));
    into.method = *method;
    return {};
  }
  const std::vector<std::string> known = {"every", "layers", "method"};
  Error error = of_key(wrong(value, listed(known)), key);
  error.code = ErrorCode::unknown_name;
  error.found = "an unknown key";
  if (const auto near = nearest_name(key, known)) {
    error.hint = fmt::format("did you mean \"{}\"?", *near);
  }
  return fail(std::move(error));
}

}  // namespace

Result<RecomputeKeys> Leaf<RecomputeKeys>::read(const facts::Value& value, const Rule& rule) {
  RecomputeKeys recompute;
  if (const auto* members = value.as_object()) {
    recompute.mode = RecomputeMode::full;
    for (const auto& [key, member] : *members) {
      STEELYARD_CHECK(read_member(key, member, recompute));
    }
    const bool every = recompute.every.has_value() && !recompute.layers && !recompute.method;
    const bool layers = recompute.layers.has_value() && !recompute.every;
    if (every || layers) return recompute;
    Error error = wrong(value, accepted_forms());
    error.code = ErrorCode::impossible_combination;
    error.found = to_toml(value).value_or(error.found);
    return fail(std::move(error));
  }
  if (value.as_text() == nullptr) return fail(wrong(value, accepted_forms()));
  STEELYARD_TRY(mode, Leaf<RecomputeMode>::read(value, rule));
  recompute.mode = mode;
  return recompute;
}

facts::Value Leaf<RecomputeKeys>::write(const RecomputeKeys& recompute) {
  facts::Object table;
  if (recompute.every) table.emplace_back("every", *recompute.every);
  if (recompute.layers) table.emplace_back("layers", *recompute.layers);
  if (recompute.method)
    table.emplace_back("method", Leaf<RecomputeMethod>::write(*recompute.method));
  if (!table.empty()) return table;
  return Leaf<RecomputeMode>::write(recompute.mode);
}

facts::Value Leaf<RecomputeKeys>::schema(const Rule& rule) {
  const auto table = [](facts::Object properties, const char* needed) {
    return facts::Value(facts::Object{{"type", "object"},
                                      {"properties", std::move(properties)},
                                      {"required", facts::Array{needed}},
                                      {"additionalProperties", false}});
  };
  return facts::Object{
      {"anyOf", facts::Array{Leaf<RecomputeMode>::schema(rule),
                             table({{"every", whole_schema(kLayerCount)}}, "every"),
                             table({{"layers", whole_schema(kLayerCount)},
                                    {"method", Leaf<RecomputeMethod>::schema(rule)}},
                                   "layers")}}};
}

}  // namespace steelyard::codec
