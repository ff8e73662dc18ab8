#include "exchange/megatron_arguments.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "base/suggest.h"
#include "codec/codec.h"
#include "exchange/command_line.h"
#include "exchange/yaml.h"

namespace steelyard::exchange {
namespace {

namespace fs = std::filesystem;

std::string spelled(std::string_view name) {
  while (name.starts_with('-')) name.remove_prefix(1);
  std::string plain(name);
  std::replace(plain.begin(), plain.end(), '_', '-');
  return plain;
}

Error wrong(ErrorCode code, const std::string& name, std::string found, std::string accepted,
            std::string hint = {}) {
  Error error;
  error.code = code;
  error.subject = MegatronArguments::subject(name);
  error.found = std::move(found);
  error.accepted = std::move(accepted);
  error.hint = std::move(hint);
  return error;
}

std::string shown(const facts::Value& value) {
  return value.as_text() != nullptr ? *value.as_text() : codec::to_json(value, -1);
}

// "[a, 'b' c]" as the words in it: how a list stands in Megatron's own test configurations.
std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  const auto end_word = [&] {
    if (!word.empty()) words.push_back(std::exchange(word, {}));
  };
  for (char c : text) {
    if (c == '[' || c == ']' || c == ',' || c == '\'' || c == '"' ||
        std::isspace(static_cast<unsigned char>(c)) != 0) {
      end_word();
    } else {
      word += c;
    }
  }
  end_word();
  return words;
}

// The members that a tool's file spreads over tables (MODEL_ARGS of the functional tests, sections
// of --yaml-cfg), in one object.
void flatten(const facts::Value& value, facts::Object& into) {
  for (const auto& [name, member] : *value.as_object()) {
    if (name == "ENV_VARS") continue;  // of the shell that starts the program
    if (member.as_object() != nullptr) {
      flatten(member, into);
    } else {
      into.emplace_back(name, member);
    }
  }
}

Result<facts::Value> from_file(const fs::path& path) {
  const std::string extension = path.extension().string();
  if (extension == ".json" || extension == ".toml") return codec::read_value(path);
  STEELYARD_TRY(text, codec::read_text(path));
  if (extension == ".yaml" || extension == ".yml") return parse_yaml(text, path.string());
  return parse_command_line(text, path.string());
}

Result<facts::Value> tree_of(const facts::Value& given, const fs::path& folder) {
  const std::string* text = given.as_text();
  if (text == nullptr) return given;
  const bool is_command =
      text->find("--") != std::string::npos && text->find_first_of(" \t\n") != std::string::npos;
  if (is_command) return parse_command_line(*text, "import.megatron");
  return from_file(folder / *text);
}

bool holds(const facts::Value& table, std::string_view section, const std::string& name,
           const facts::Value** entry) {
  const facts::Value* groups = table.find(section);
  if (groups == nullptr || groups->as_array() == nullptr) return false;
  for (const facts::Value& group : *groups->as_array()) {
    const facts::Value* names = group.find("arguments");
    if (names == nullptr || names->as_array() == nullptr) continue;
    for (const facts::Value& known : *names->as_array()) {
      if (known.as_text() == nullptr || spelled(*known.as_text()) != name) continue;
      *entry = &group;
      return true;
    }
  }
  return false;
}

// "no-X" and "disable-X" turn X off.
std::optional<std::string> negated(const std::string& name) {
  for (const std::string_view prefix : {"no-", "disable-"}) {
    if (name.starts_with(prefix)) return name.substr(prefix.size());
  }
  return std::nullopt;
}

bool is_neutral(const facts::Value& group, const std::string& name, const facts::Value& value) {
  if (const facts::Value* neutral = group.find("neutral")) {
    if (const facts::Value* own = neutral->find(name)) return *own == value;
  }
  const facts::Array* items = value.as_array();
  return value.is_null() || value == facts::Value(false) || value == facts::Value(0) ||
         value == facts::Value("none") || (items != nullptr && items->empty());
}

std::vector<std::string> all_names(const facts::Value& table,
                                   const std::vector<std::string>& understood) {
  std::vector<std::string> names = understood;
  for (const char* section : {"refused", "ignored"}) {
    const facts::Value* groups = table.find(section);
    if (groups == nullptr || groups->as_array() == nullptr) continue;
    for (const facts::Value& group : *groups->as_array()) {
      const facts::Value* arguments = group.find("arguments");
      if (arguments == nullptr || arguments->as_array() == nullptr) continue;
      for (const facts::Value& argument : *arguments->as_array()) {
        if (argument.as_text() != nullptr) names.push_back(*argument.as_text());
      }
    }
  }
  return names;
}

std::set<std::string, std::less<>> names_of(const facts::Value& group, std::string_view key) {
  std::set<std::string, std::less<>> names;
  const facts::Value* list = group.find(key);
  if (list == nullptr || list->as_array() == nullptr) return names;
  for (const facts::Value& name : *list->as_array()) {
    if (name.as_text() != nullptr) names.insert(*name.as_text());
  }
  return names;
}

std::set<std::string, std::less<>> names_under(const facts::Value& table, std::string_view key) {
  const facts::Value* description = table.find("description");
  return description == nullptr ? std::set<std::string, std::less<>>{}
                                : names_of(*description, key);
}

Error misdescribed(const char* key, const char* accepted) {
  return Error{.code = ErrorCode::bad_input,
               .subject = fmt::format("import/megatron.toml: description.{}", key),
               .found = "something else",
               .accepted = accepted};
}

}  // namespace

std::string MegatronArguments::subject(std::string_view name) {
  return fmt::format("import.megatron.{}", name);
}

MegatronArguments::KnownArguments MegatronArguments::known_arguments(const facts::Value& table) {
  KnownArguments known;
  const facts::Value* understood = table.find("understood");
  if (understood == nullptr || understood->as_object() == nullptr) return known;
  for (const auto& [section, members] : *understood->as_object()) {
    if (members.as_object() == nullptr) continue;
    for (const auto& [name, rule] : *members.as_object()) {
      Known& entry = known[spelled(name)];
      if (const facts::Value* kind = rule.find("kind"); kind != nullptr && kind->as_text()) {
        entry.kind = *kind->as_text();
      }
      if (const facts::Value* otherwise = rule.find("default")) entry.otherwise = *otherwise;
    }
  }
  return known;
}

Result<MegatronArguments> MegatronArguments::read(const facts::Value& given, const fs::path& folder,
                                                  const facts::Value& table,
                                                  const facts::Value& versions) {
  STEELYARD_TRY(tree, tree_of(given, folder));
  if (tree.as_object() == nullptr) {
    return fail(Error{.code = ErrorCode::bad_input,
                      .subject = "import.megatron",
                      .found = tree.kind_name(),
                      .accepted = "arguments by name, the path of a file, or a command line"});
  }
  MegatronArguments arguments;
  arguments.known_ = known_arguments(table);
  facts::Object members;
  const facts::Value* inner = tree.find("MODEL_ARGS");
  flatten(inner != nullptr && inner->as_object() != nullptr ? *inner : tree, members);
  const auto whole_with = names_under(table, "whole_with");
  bool whole = false;
  for (const auto& [name, value] : members) {
    whole = whole || whole_with.contains(spelled(name));
    STEELYARD_CHECK(arguments.take(spelled(name), value, table));
  }
  arguments.other_engines_ = names_under(table, "other_engines");
  if (whole) return arguments;
  arguments.assumed_ = names_under(table, "assumed");
  STEELYARD_CHECK(arguments.assume_of_spread_experts(table, versions));
  return arguments;
}

Result<void> MegatronArguments::assume_of_spread_experts(const facts::Value& table,
                                                         const facts::Value& versions) {
  const facts::Value* description = table.find("description");
  const facts::Value* groups =
      description == nullptr ? nullptr : description->find("spread_experts");
  if (groups == nullptr || !given("num-experts")) return {};
  if (whole("expert-model-parallel-size") <= 1) return {};
  if (groups->as_array() == nullptr) return fail(misdescribed("spread_experts", "tables"));
  const auto is_said = [this](const std::string& name) {
    return given(name) || neutral_.contains(name);
  };
  const auto runs = [&versions](const std::string& package) {
    return versions.find(package) != nullptr;
  };
  for (const facts::Value& group : *groups->as_array()) {
    if (std::ranges::any_of(names_of(group, "unless"), is_said)) continue;
    if (std::ranges::any_of(names_of(group, "unless_versions"), runs)) continue;
    const facts::Value* values = group.find("values");
    if (values == nullptr || values->as_object() == nullptr) {
      return fail(misdescribed("spread_experts.values", "a table of arguments"));
    }
    STEELYARD_CHECK(assume(*values));
  }
  return {};
}

Result<void> MegatronArguments::assume(const facts::Value& values) {
  for (const auto& [name, value] : *values.as_object()) {
    if (!known_.contains(spelled(name))) {
      return fail(misdescribed("spread_experts.values", "arguments that are understood"));
    }
    STEELYARD_CHECK(keep(spelled(name), value));
    assumed_values_.push_back(fmt::format("{} = {}", spelled(name), shown(value)));
  }
  return {};
}

Result<bool> MegatronArguments::take_alias(const std::string& name, const facts::Value& value,
                                           const facts::Value& table) {
  const facts::Value* aliases = table.find("alias");
  const facts::Value* alias = aliases == nullptr ? nullptr : aliases->find(name);
  if (alias == nullptr) return false;
  const facts::Value* argument = alias->find("argument");
  if (argument == nullptr || argument->as_text() == nullptr) return false;
  const facts::Value* means = alias->find("value");
  if (means != nullptr && value == facts::Value(false)) return true;  // not given
  STEELYARD_CHECK(keep(*argument->as_text(), means != nullptr ? *means : value));
  return true;
}

Result<void> MegatronArguments::take(std::string name, const facts::Value& value,
                                     const facts::Value& table) {
  if (value.is_null()) return {};
  if (known_.contains(name)) return keep(name, value);
  STEELYARD_TRY(is_alias, take_alias(name, value, table));
  if (is_alias) return {};
  const std::optional<std::string> positive = negated(name);
  if (positive && known_.contains(*positive) && known_.find(*positive)->second.kind == "flag") {
    return keep(*positive, value != facts::Value(true));
  }
  const facts::Value* group = nullptr;
  if (holds(table, "ignored", name, &group)) return {};
  if (positive && holds(table, "ignored", *positive, &group)) return {};
  const bool off = positive && holds(table, "refused", *positive, &group);
  if (off || holds(table, "refused", name, &group)) {
    const facts::Value meant = off ? facts::Value(value != facts::Value(true)) : value;
    if (is_neutral(*group, off ? *positive : name, meant)) {
      neutral_.insert(off ? *positive : name);
      return {};
    }
    const facts::Value* because = group->find("because");
    return fail(wrong(ErrorCode::not_supported, name, shown(value), "a job without it",
                      because != nullptr && because->as_text() ? "it " + *because->as_text() : ""));
  }
  std::vector<std::string> names;
  for (const auto& [known, rule] : known_) names.push_back(known);
  const auto nearest = nearest_name(name, all_names(table, names));
  return fail(wrong(ErrorCode::unknown_name, name, "an argument that Megatron-LM does not have",
                    "an argument of catalog/import/megatron.toml",
                    nearest ? "did you mean " + *nearest + "?" : ""));
}

Result<void> MegatronArguments::keep(const std::string& name, const facts::Value& value) {
  const std::string& kind = known_.find(name)->second.kind;
  facts::Value plain = value;
  if (const std::string* text = value.as_text(); text != nullptr && kind != "text") {
    if (kind == "list") {
      facts::Array items;
      for (std::string& word : words_of(*text)) items.emplace_back(std::move(word));
      plain = std::move(items);
    } else {
      plain = plain_scalar(*text);
    }
  }
  if (kind == "real" && plain.as_whole()) plain = static_cast<double>(*plain.as_whole());
  if (kind == "text" && plain.as_text() == nullptr) plain = codec::to_json(plain, -1);
  if (kind == "list" && plain.as_array() == nullptr) {
    plain = facts::Array{facts::Value(codec::to_json(plain, -1))};
  }
  const bool fits = kind == "flag"    ? plain.as_bool() != nullptr
                    : kind == "whole" ? plain.as_whole() != nullptr && *plain.as_whole() >= 0
                    : kind == "real"  ? plain.as_real() != nullptr
                                      : true;
  if (!fits) {
    const char* accepted = kind == "flag"    ? "true or false (a flag)"
                           : kind == "whole" ? "a whole number, 0 or more"
                                             : "a number";
    return fail(wrong(ErrorCode::bad_input, name, shown(value), accepted));
  }
  values_[name] = std::move(plain);
  return {};
}

facts::Value MegatronArguments::value(std::string_view name) const {
  if (const auto own = values_.find(name); own != values_.end()) return own->second;
  const auto known = known_.find(name);
  return known == known_.end() ? facts::Value() : known->second.otherwise;
}

bool MegatronArguments::flag(std::string_view name) const {
  const facts::Value found = value(name);
  return found.as_bool() != nullptr && *found.as_bool();
}

std::optional<std::int64_t> MegatronArguments::optional_whole(std::string_view name) const {
  const facts::Value found = value(name);
  if (found.as_whole() == nullptr) return std::nullopt;
  return *found.as_whole();
}

std::int64_t MegatronArguments::whole(std::string_view name) const {
  return optional_whole(name).value_or(0);
}

double MegatronArguments::real(std::string_view name) const {
  const facts::Value found = value(name);
  return found.as_real() != nullptr ? *found.as_real() : 0.0;
}

std::string MegatronArguments::text(std::string_view name) const {
  const facts::Value found = value(name);
  return found.as_text() != nullptr ? *found.as_text() : "";
}

std::vector<std::string> MegatronArguments::list(std::string_view name) const {
  std::vector<std::string> words;
  const facts::Value found = value(name);
  if (found.as_array() == nullptr) return words;
  for (const facts::Value& item : *found.as_array()) {
    words.push_back(item.as_text() != nullptr ? *item.as_text() : codec::to_json(item, -1));
  }
  return words;
}

}  // namespace steelyard::exchange
