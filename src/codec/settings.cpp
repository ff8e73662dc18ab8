#include "codec/settings.h"

#include <fmt/format.h>

#include "codec/document.h"
#include "codec/write_text.h"

namespace steelyard::codec {
namespace {

Error bad_setting(std::string subject, std::string found, std::string accepted, std::string hint) {
  return {.code = ErrorCode::bad_input,
          .subject = std::move(subject),
          .found = std::move(found),
          .accepted = std::move(accepted),
          .hint = std::move(hint),
          .file = "--set",
          .line = {}};
}

// What stands in the place of a table when a key inside of it is set.
facts::Value as_table(std::string_view path, const facts::Value& old) {
  if (path == "train.optimizer" && old.as_text() != nullptr) {
    return facts::Object{{"name", old}};  // the short form
  }
  // Names of recompute ("full") have no keys: the new table replaces them.
  if (path == "train.recompute" && old.as_text() != nullptr) return facts::Object{};
  return old;
}

// The tables down to the last part; creates what is missing.
Result<facts::Value*> descend(facts::Value& root, std::string_view key, std::string_view tables) {
  facts::Value* at = &root;
  std::size_t begin = 0;
  while (begin < tables.size()) {
    const std::size_t dot = std::min(tables.find('.', begin), tables.size());
    const std::string_view part = tables.substr(begin, dot - begin);
    const std::string_view path = tables.substr(0, dot);
    const facts::Value* old = at->find(part);
    at->set(part, old == nullptr ? facts::Value(facts::Object{}) : as_table(path, *old));
    for (auto& [name, member] : *at->as_object()) {
      if (name == part) at = &member;
    }
    if (at->as_object() == nullptr) {
      const std::string hint = path == "model.config"
                                   ? "set a key of the configuration with model.set.KEY=VALUE"
                                   : std::string();
      return fail(bad_setting(std::string(key), fmt::format("{}, which is {}", path, shown(*at)),
                              "a key inside of a table", hint));
    }
    begin = dot + 1;
  }
  return at;
}

Result<void> apply(facts::Value& job, const std::string& setting,
                   std::set<std::string, std::less<>>& given) {
  constexpr const char* kForm = "KEY=VALUE, for example train.micro_batch=4";
  const std::size_t equals = setting.find('=');
  const std::string key = setting.substr(0, equals);
  const bool empty_part =
      key.empty() || key.front() == '.' || key.back() == '.' || key.find("..") != std::string::npos;
  if (equals == std::string::npos || empty_part) {
    return fail(bad_setting("setting", json_text(setting), kForm, {}));
  }
  auto value = setting_value(std::string_view(setting).substr(equals + 1));
  if (!value) {
    Error error = std::move(value).error();
    error.subject = key;
    return fail(std::move(error));
  }
  const std::size_t dot = key.rfind('.');
  const std::string tables = dot == std::string::npos ? std::string() : key.substr(0, dot);
  STEELYARD_TRY(table, descend(job, key, tables));
  table->set(dot == std::string::npos ? key : key.substr(dot + 1), std::move(*value));
  given.insert(key);
  return {};
}

}  // namespace

Result<facts::Value> setting_value(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) {
    return fail(bad_setting("setting", "nothing", "a value in TOML syntax, or a bare word",
                            "an empty text is \"\", in quotes"));
  }
  text = text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
  const bool one_line = text.find_first_of("\r\n") == std::string_view::npos;
  const auto parsed = parse_toml(fmt::format("value = {}", text), "--set", nullptr);
  if (parsed && one_line && parsed->find("value") != nullptr) return *parsed->find("value");
  // Not TOML: a bare word such as llama-3.1-8b or ./config.json, unless it tried to be more.
  constexpr std::string_view kTomlStarts = "[{\"'";
  if (one_line && kTomlStarts.find(text.front()) == std::string_view::npos) {
    return facts::Value(std::string(text));
  }
  return fail(bad_setting("setting", json_text(text), "a value in TOML syntax, or a bare word",
                          parsed ? std::string() : parsed.error().found));
}

Result<void> apply_settings(facts::Value& job, std::span<const std::string> settings,
                            std::set<std::string, std::less<>>& given) {
  for (const auto& setting : settings) STEELYARD_CHECK(apply(job, setting, given));
  return {};
}

}  // namespace steelyard::codec
