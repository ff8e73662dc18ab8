#include "catalog/operator_words.h"

#include <fmt/format.h>

#include <charconv>
#include <string>
#include <string_view>
#include <vector>

#include "base/suggest.h"

namespace steelyard::catalog {
namespace {

std::vector<std::string> keys_of(const facts::Value& table) {
  std::vector<std::string> keys;
  if (table.as_object() == nullptr) return keys;
  for (const auto& [key, _] : *table.as_object()) keys.push_back(key);
  return keys;
}

Error wrong(std::string_view key, std::string found, std::string accepted,
            const std::filesystem::path& file) {
  return {.code = ErrorCode::bad_input,
          .subject = fmt::format("operators.{}", key),
          .found = std::move(found),
          .accepted = std::move(accepted),
          .hint = "catalog/framework_words.toml says what each means",
          .file = file.string()};
}

bool is_number(std::string_view text) {
  double value = 0.0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  return status == std::errc() && end == text.data() + text.size();
}

// Empty where the key takes the word; otherwise what it takes.
std::string refusal(const facts::Value& key, std::string_view word) {
  if (const facts::Value* words = key.find("words")) {
    if (words->find(word) != nullptr) return {};
    return listed(keys_of(*words));
  }
  const facts::Value* takes = key.find("takes");
  const bool number =
      takes != nullptr && takes->as_text() != nullptr && *takes->as_text() == "number";
  return number && !is_number(word) ? "a number, written as text: \"4\"" : std::string();
}

}  // namespace

Result<void> check_operator_words(const facts::Value& known, const facts::Value* operators,
                                  const std::filesystem::path& file) {
  if (operators == nullptr || operators->as_object() == nullptr) return {};
  for (const auto& [key, value] : *operators->as_object()) {
    const facts::Value* entry = known.find(key);
    if (entry == nullptr) {
      const std::vector<std::string> keys = keys_of(known);
      const auto near = nearest_name(key, keys);
      return fail(
          wrong(key, "a key that nothing reads", near ? "operators." + *near : listed(keys), file));
    }
    const std::string* word = value.as_text();
    if (word == nullptr) return fail(wrong(key, value.kind_name(), "text", file));
    std::string accepted = refusal(*entry, *word);
    if (!accepted.empty()) return fail(wrong(key, *word, std::move(accepted), file));
  }
  return {};
}

}  // namespace steelyard::catalog
