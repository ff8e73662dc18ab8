#include "model/config_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/suggest.h"

namespace steelyard::model {

namespace {

const facts::Value kNothing;

struct NamedActivation {
  std::string_view name;
  ActivationKind kind;
};

// transformers.activations.ACT2FN, as far as the families here use it.
constexpr std::array kActivations = {
    NamedActivation{"gelu", ActivationKind::gelu},
    NamedActivation{"gelu_fast", ActivationKind::gelu_fast},
    NamedActivation{"gelu_new", ActivationKind::gelu_new},
    NamedActivation{"gelu_pytorch_tanh", ActivationKind::gelu_tanh},
    NamedActivation{"hardsigmoid", ActivationKind::hardsigmoid},
    NamedActivation{"hardswish", ActivationKind::hardswish},
    NamedActivation{"quick_gelu", ActivationKind::quick_gelu},
    NamedActivation{"relu", ActivationKind::relu},
    NamedActivation{"relu2", ActivationKind::squared_relu},
    NamedActivation{"relu6", ActivationKind::relu6},
    NamedActivation{"sigmoid", ActivationKind::sigmoid},
    NamedActivation{"silu", ActivationKind::silu},
    NamedActivation{"swish", ActivationKind::silu},
    NamedActivation{"tanh", ActivationKind::tanh},
};

}  // namespace

std::optional<ActivationKind> activation_named(std::string_view name) {
  for (const NamedActivation& known : kActivations) {
    if (known.name == name) return known.kind;
  }
  return std::nullopt;
}

namespace {

// A value as a message shows it; long texts and tables are named, not printed.
std::string shown(const facts::Value& value) {
  if (const bool* b = value.as_bool()) return *b ? "true" : "false";
  if (const std::int64_t* n = value.as_whole()) return fmt::format("{}", *n);
  if (const double* x = value.as_real()) return fmt::format("{}", *x);
  constexpr std::size_t kLongest = 40;
  if (const std::string* text = value.as_text(); text != nullptr && text->size() <= kLongest) {
    return fmt::format("\"{}\"", *text);
  }
  return value.kind_name();
}

// 4096.0 is as whole as 4096: some tools write every number with a point.
std::optional<std::int64_t> whole_value(const facts::Value& value) {
  if (const std::int64_t* n = value.as_whole()) return *n;
  constexpr double kExact = 9007199254740992.0;  // 2^53: beyond it a double skips whole numbers
  const double* x = value.as_real();
  if (x == nullptr || std::abs(*x) > kExact || std::trunc(*x) != *x) return std::nullopt;
  return static_cast<std::int64_t>(*x);
}

}  // namespace

ConfigReader::ConfigReader(const facts::Value& config, std::string name)
    : config_(&config), name_(std::move(name)) {}

ConfigReader::Found ConfigReader::find(Keys keys) const {
  for (std::string_view key : keys) {
    const facts::Value* value = config_->find(key);
    if (value != nullptr && !value->is_null()) return {key, value};
  }
  return {};
}

bool ConfigReader::has(std::string_view key) const {
  return find({key}).value != nullptr;
}

bool ConfigReader::is_text(std::string_view key, std::string_view text) const {
  const Found found = find({key});
  const std::string* there = found.value == nullptr ? nullptr : found.value->as_text();
  return there != nullptr && *there == text;
}

bool ConfigReader::is_null(std::string_view key) const {
  const facts::Value* value = config_->find(key);
  return value != nullptr && value->is_null();
}

std::string ConfigReader::subject_of(std::string_view key) const {
  return fmt::format("{}: {}{}", name_, prefix_, key);
}

void ConfigReader::reject(Error error) {
  if (!error_) error_ = std::move(error);
}

void ConfigReader::reject(std::string_view key, std::string found, std::string accepted,
                          std::string hint) {
  reject(Error{.code = ErrorCode::bad_input,
               .subject = subject_of(key),
               .found = std::move(found),
               .accepted = std::move(accepted),
               .hint = std::move(hint)});
}

void ConfigReader::reject_kind(const Found& found, std::string accepted) {
  reject(found.key, shown(*found.value), std::move(accepted));
}

std::optional<std::int64_t> ConfigReader::optional_whole(Keys keys, Limits limits) {
  const Found found = find(keys);
  if (found.value == nullptr) return std::nullopt;
  const std::optional<std::int64_t> number = whole_value(*found.value);
  if (!number || *number < limits.least || *number > limits.most) {
    reject_kind(found, fmt::format("a whole number from {} to {}", limits.least, limits.most));
    return std::nullopt;
  }
  return number;
}

std::int64_t ConfigReader::whole(Keys keys, std::int64_t fallback, Limits limits) {
  return optional_whole(keys, limits).value_or(fallback);
}

double ConfigReader::real(Keys keys, double fallback, double least, double most) {
  const Found found = find(keys);
  if (found.value == nullptr) return fallback;
  double number = std::nan("");
  if (const double* x = found.value->as_real()) number = *x;
  if (const std::int64_t* n = found.value->as_whole()) number = static_cast<double>(*n);
  if (!(number >= least && number <= most)) {  // NaN fails as well
    reject_kind(found, fmt::format("a number from {} to {}", least, most));
    return fallback;
  }
  return number;
}

bool ConfigReader::flag(Keys keys, bool fallback) {
  const Found found = find(keys);
  if (found.value == nullptr) return fallback;
  if (const bool* b = found.value->as_bool()) return *b;
  reject_kind(found, "true or false");
  return fallback;
}

std::string ConfigReader::text(Keys keys, std::string fallback) {
  const Found found = find(keys);
  if (found.value == nullptr) return fallback;
  if (const std::string* text = found.value->as_text()) return *text;
  reject_kind(found, "text");
  return fallback;
}

ActivationKind ConfigReader::activation(Keys keys, std::string_view fallback) {
  const std::string name = text(keys, std::string(fallback));
  if (const auto kind = activation_named(name)) return *kind;
  std::vector<std::string> known;
  for (const NamedActivation& activation : kActivations) known.emplace_back(activation.name);
  const auto nearest = nearest_name(name, known);
  const Found found = find(keys);
  reject(found.key, fmt::format("\"{}\"", name), listed(known),
         nearest ? fmt::format("did you mean \"{}\"?", *nearest) : "");
  return ActivationKind::gelu;
}

std::vector<std::string> ConfigReader::text_list(Keys keys) {
  const Found found = find(keys);
  if (found.value == nullptr) return {};
  std::vector<std::string> texts;
  const facts::Array* items = found.value->as_array();
  if (items != nullptr) {
    for (const facts::Value& item : *items) {
      if (const std::string* text = item.as_text()) texts.push_back(*text);
    }
  }
  if (items == nullptr || texts.size() != items->size()) {
    reject_kind(found, "a list of texts");
    return {};
  }
  return texts;
}

std::string ConfigReader::choice(Keys keys, std::string_view fallback, Keys words) {
  std::string word = text(keys, std::string(fallback));
  if (std::find(words.begin(), words.end(), word) != words.end()) return word;
  std::vector<std::string> accepted;
  for (const std::string_view known : words) accepted.emplace_back(known);
  reject(find(keys).key, fmt::format("\"{}\"", word), listed(accepted));
  return std::string(fallback);
}

std::vector<std::int64_t> ConfigReader::whole_list(Keys keys, std::vector<std::int64_t> fallback,
                                                   Limits limits, std::size_t single) {
  const Found found = find(keys);
  if (found.value == nullptr) return fallback;
  const auto fits = [&](const facts::Value& value) {
    const auto number = whole_value(value);
    return number && *number >= limits.least && *number <= limits.most;
  };
  if (single > 0 && fits(*found.value)) {
    return std::vector<std::int64_t>(single, *whole_value(*found.value));
  }
  std::vector<std::int64_t> numbers;
  const facts::Array* items = found.value->as_array();
  for (std::size_t i = 0; items != nullptr && i < items->size() && fits((*items)[i]); ++i) {
    numbers.push_back(*whole_value((*items)[i]));
  }
  constexpr std::size_t kLongest = 1024;  // stages of a network, tables of a recommender
  if (items == nullptr || numbers.size() != items->size() || numbers.empty() ||
      numbers.size() > kLongest) {
    reject_kind(found, fmt::format("a list of 1 to {} whole numbers from {} to {}", kLongest,
                                   limits.least, limits.most));
    return fallback;
  }
  return numbers;
}

bool ConfigReader::is_empty_list(std::string_view key) const {
  const Found found = find({key});
  return found.value != nullptr && found.value->as_array() != nullptr &&
         found.value->as_array()->empty();
}

const facts::Value& ConfigReader::value(std::string_view key) const {
  const facts::Value* found = config_->find(key);
  return found == nullptr ? kNothing : *found;
}

std::optional<std::int64_t> ConfigReader::members(std::string_view key) const {
  const Found found = find({key});
  if (found.value == nullptr || found.value->as_object() == nullptr) return std::nullopt;
  return static_cast<std::int64_t>(found.value->as_object()->size());
}

ConfigReader ConfigReader::table(std::string_view key) {
  const Found found = find({key});
  const facts::Value* inside = &kNothing;
  if (found.value != nullptr) {
    if (found.value->as_object() != nullptr) {
      inside = found.value;
    } else {
      reject_kind(found, "a table");
    }
  }
  ConfigReader inner(*inside, name_);
  inner.prefix_ = prefix_ + std::string(key) + ".";
  return inner;
}

void ConfigReader::adopt(const ConfigReader& inner) {
  if (inner.error_) reject(*inner.error_);
}

}  // namespace steelyard::model
