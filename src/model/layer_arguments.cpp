#include "model/layer_arguments.h"

#include <fmt/format.h>

#include <cmath>

#include "base/suggest.h"

namespace steelyard::model {

namespace {

const facts::Array kNoList;

std::string shown(const facts::Value& value) {
  if (const std::string* text = value.as_text()) return fmt::format("\"{}\"", *text);
  if (const std::int64_t* n = value.as_whole()) return fmt::format("{}", *n);
  if (const double* x = value.as_real()) return fmt::format("{}", *x);
  return value.kind_name();
}

}  // namespace

LayerArguments::LayerArguments(const facts::Object& layer, const Scope& scope,
                               std::optional<LayerFault>& fault)
    : layer_(layer), scope_(scope), fault_(fault) {
  if (!layer.empty()) kind_ = layer.front().first;
  asked_.insert(kind_);
}

const facts::Value* LayerArguments::find(std::string_view key) {
  asked_.emplace(key);
  for (const auto& [name, value] : layer_) {
    if (name == key) return &value;
  }
  return nullptr;
}

bool LayerArguments::has(std::string_view key) {
  return find(key) != nullptr;
}

void LayerArguments::reject(std::string_view key, std::string found, std::string accepted) {
  if (fault_) return;
  const std::string member = key == kind_ ? std::string() : fmt::format(".{}", key);
  fault_ = LayerFault{kind_ + member, std::move(found), std::move(accepted)};
}

double LayerArguments::real(std::string_view key, double fallback, double least, double most) {
  const facts::Value* value = find(key);
  if (value == nullptr || value->is_null()) return fallback;
  const std::optional<double> number = number_of(*value, scope_);
  if (number && *number >= least && *number <= most) return *number;
  const std::string result = number ? fmt::format(" = {}", *number) : "";
  reject(key, shown(*value) + result,
         fmt::format("a number from {} to {}, or \"=\" and an expression", least, most));
  return fallback;
}

std::int64_t LayerArguments::whole(std::string_view key, std::int64_t fallback, Limits limits) {
  const double number = real(key, static_cast<double>(fallback), static_cast<double>(limits.least),
                             static_cast<double>(limits.most));
  if (std::trunc(number) == number) return static_cast<std::int64_t>(number);
  reject(key, fmt::format("{}", number), "a whole number");
  return fallback;
}

bool LayerArguments::flag(std::string_view key, bool fallback) {
  return real(key, fallback ? 1.0 : 0.0, 0.0, 1.0) != 0.0;
}

std::string LayerArguments::text(std::string_view key, std::string_view fallback) {
  const facts::Value* value = find(key);
  if (value == nullptr || value->is_null()) return std::string(fallback);
  const std::string* text = value->as_text();
  const std::optional<std::string> result = text == nullptr ? std::nullopt : filled(*text, scope_);
  if (result) return *result;
  reject(key, shown(*value), "a text whose variables in braces are known");
  return std::string(fallback);
}

std::vector<std::int64_t> LayerArguments::wholes(std::string_view key) {
  std::vector<std::int64_t> numbers;
  for (const facts::Value& item : list(key)) {
    const std::optional<double> number = number_of(item, scope_);
    if (!number || *number < 1.0 || *number > 9e15 || std::trunc(*number) != *number) {
      reject(key, shown(item), "whole numbers from 1, or \"=\" and an expression");
      return {};
    }
    numbers.push_back(static_cast<std::int64_t>(*number));
  }
  return numbers;
}

std::vector<std::string> LayerArguments::texts(std::string_view key) {
  std::vector<std::string> texts;
  for (const facts::Value& item : list(key)) {
    const std::string* text = item.as_text();
    const std::optional<std::string> result =
        text == nullptr ? std::nullopt : filled(*text, scope_);
    if (!result) {
      reject(key, shown(item), "texts");
      return {};
    }
    texts.push_back(*result);
  }
  return texts;
}

ActivationKind LayerArguments::activation(std::string_view key) {
  const std::string name = text(key, "");
  if (const auto kind = activation_named(name)) return *kind;
  reject(key, fmt::format("\"{}\"", name), "gelu, hardswish, relu, relu6, sigmoid, silu, ...");
  return ActivationKind::relu;
}

const facts::Array& LayerArguments::list(std::string_view key) {
  const facts::Value* value = find(key);
  if (value == nullptr || value->is_null()) return kNoList;
  if (const facts::Array* items = value->as_array()) return *items;
  reject(key, value->kind_name(), "a list");
  return kNoList;
}

Scope LayerArguments::others() {
  Scope values;
  for (const auto& [key, value] : layer_) {
    if (asked_.contains(key)) continue;
    asked_.insert(key);
    std::optional<facts::Value> result = resolved(value, scope_);
    if (!result) {
      reject(key, shown(value), "a value, a text, or \"=\" and an expression of known variables");
      continue;
    }
    values[key] = std::move(*result);
  }
  return values;
}

void LayerArguments::finish() {
  for (const auto& [key, value] : layer_) {
    if (asked_.contains(key)) continue;
    std::vector<std::string> known(asked_.begin(), asked_.end());
    reject(key, "a key that this layer does not have", listed(known));
  }
}

}  // namespace steelyard::model
