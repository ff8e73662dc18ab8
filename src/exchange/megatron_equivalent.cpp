#include "exchange/megatron_equivalent.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "exchange/megatron_arguments.h"
#include "exchange/megatron_model.h"

namespace steelyard::exchange {
namespace {

using facts::Value;

const Value* entry_of(const Value& table, const Value& type) {
  const Value* models = table.find("models");
  if (models == nullptr || models->as_array() == nullptr) return nullptr;
  for (const Value& entry : *models->as_array()) {
    const Value* types = entry.find("types");
    if (types == nullptr || types->as_array() == nullptr) continue;
    if (std::ranges::find(*types->as_array(), type) != types->as_array()->end()) return &entry;
  }
  return nullptr;
}

bool meets(const Value& config, const Value* conditions) {
  if (conditions == nullptr || conditions->as_object() == nullptr) return true;
  return std::ranges::all_of(*conditions->as_object(), [&](const auto& condition) {
    const Value* found = config.find(condition.first);
    return found == nullptr || found->is_null() || *found == condition.second;
  });
}

void add_all(const Value* from, Value& to) {
  if (from == nullptr || from->as_object() == nullptr) return;
  for (const auto& [name, value] : *from->as_object()) to.set(name, value);
}

// The first of the keys that the configuration has a value for.
const Value* first_of(const Value& config, std::string_view keys) {
  while (!keys.empty()) {
    const std::size_t comma = std::min(keys.find(", "), keys.size());
    const Value* found = config.find(keys.substr(0, comma));
    if (found != nullptr && !found->is_null()) return found;
    keys.remove_prefix(std::min(comma + 2, keys.size()));
  }
  return nullptr;
}

// Hugging Face counts a token among the window that it sees, Megatron-LM those before it.
Value as_argument(std::string_view name, const Value& value) {
  const std::int64_t* tokens = value.as_whole();
  if (name != "window-size" || tokens == nullptr) return value;
  return fmt::format("({}, 0)", *tokens - 1);
}

void add_keys(const Value& config, const Value* keys, Value& to) {
  constexpr std::string_view kNot = "not ";
  if (keys == nullptr || keys->as_object() == nullptr) return;
  for (const auto& [name, key] : *keys->as_object()) {
    const std::string* words = key.as_text();
    if (words == nullptr) continue;
    const bool opposite = words->starts_with(kNot);
    const std::string_view wanted = std::string_view(*words).substr(opposite ? kNot.size() : 0);
    const Value* found = first_of(config, wanted);
    if (found == nullptr) continue;
    const bool* flag = found->as_bool();
    to.set(name, opposite && flag != nullptr ? Value(!*flag) : as_argument(name, *found));
  }
}

}  // namespace

Result<std::optional<Value>> megatron_equivalent(const Value& config, std::int64_t tensor,
                                                 const Value& models_table,
                                                 const Value& megatron_table) {
  const Value* type = config.find("model_type");
  const Value* entry = type == nullptr ? nullptr : entry_of(models_table, *type);
  if (entry == nullptr || !meets(config, entry->find("only_if"))) return std::nullopt;
  Value arguments{facts::Object{}};
  add_all(entry->find("arguments"), arguments);
  const Value* own = entry->find("arguments_of");
  const std::string* name = type->as_text();
  if (own != nullptr && name != nullptr) add_all(own->find(*name), arguments);
  add_keys(config, entry->find("keys"), arguments);
  STEELYARD_TRY(read, MegatronArguments::read(arguments, {}, megatron_table));
  STEELYARD_TRY(model, megatron_model(read, tensor));
  return std::optional<Value>(std::move(model));
}

}  // namespace steelyard::exchange
