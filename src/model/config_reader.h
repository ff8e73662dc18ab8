// Typed reading of a model's own configuration (config.json). Real files carry many keys that do
// not matter here, so unknown keys are ignored; a key that is read is checked.
//
// The reader remembers the first thing that is wrong and goes on with the default, so that a family
// reads its keys in plain statements; `build` asks for `first_error` before it hands out the graph.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "facts/value.h"
#include "model/graph.h"

namespace steelyard::model {

// A whole number of a configuration: from `least` to `most`, both allowed.
struct Limits {
  std::int64_t least = 1;
  std::int64_t most = 0;
};

// Far above every model there is; beyond them a number is a slip of the pen.
constexpr Limits kLayerLimits{1, 100'000};
constexpr Limits kHiddenLimits{1, 1'048'576};
constexpr Limits kWideLimits{1, 16'777'216};  // feed-forward width
constexpr Limits kHeadLimits{1, 65'536};
constexpr Limits kVocabularyLimits{1, 16'777'216};
constexpr Limits kPositionLimits{1, 1'073'741'824};
constexpr Limits kWindowLimits{1, 1'073'741'824};

// transformers' name of it: "gelu", "silu".
[[nodiscard]] std::optional<ActivationKind> activation_named(std::string_view name);

class ConfigReader {
 public:
  // `keys` below: the name that Hugging Face's class gives the value, then the other spellings it
  // accepts; the first that is present counts. null means absent.
  using Keys = std::initializer_list<std::string_view>;

  ConfigReader(const facts::Value& config, std::string name);

  [[nodiscard]] std::int64_t whole(Keys keys, std::int64_t fallback, Limits limits);
  [[nodiscard]] std::optional<std::int64_t> optional_whole(Keys keys, Limits limits);
  [[nodiscard]] double real(Keys keys, double fallback, double least, double most);
  [[nodiscard]] double probability(Keys keys, double fallback) {
    return real(keys, fallback, 0.0, 1.0);
  }
  [[nodiscard]] bool flag(Keys keys, bool fallback);
  [[nodiscard]] std::string text(Keys keys, std::string fallback);
  [[nodiscard]] ActivationKind activation(Keys keys, std::string_view fallback);
  [[nodiscard]] std::vector<std::string> text_list(Keys keys);
  // One of `words`.
  [[nodiscard]] std::string choice(Keys keys, std::string_view fallback, Keys words);
  // A list; a single number where `single` says how often it stands.
  [[nodiscard]] std::vector<std::int64_t> whole_list(Keys keys, std::vector<std::int64_t> fallback,
                                                     Limits limits, std::size_t single = 0);
  // Present as a list without members.
  [[nodiscard]] bool is_empty_list(std::string_view key) const;
  // What stands under the key as it is; null when it is absent.
  [[nodiscard]] const facts::Value& value(std::string_view key) const;
  // Members of the table under the key; nothing when it is absent or no table.
  [[nodiscard]] std::optional<std::int64_t> members(std::string_view key) const;

  // Present, and not null.
  [[nodiscard]] bool has(std::string_view key) const;
  // This text stands there: "auto" where a number could.
  [[nodiscard]] bool is_text(std::string_view key, std::string_view text) const;
  // Present as null: where a class distinguishes "not given" from "none".
  [[nodiscard]] bool is_null(std::string_view key) const;
  // The reader of a table inside the configuration ("attn_config"); of nothing when it is absent.
  // Its errors are handed back with `adopt`.
  [[nodiscard]] ConfigReader table(std::string_view key);
  void adopt(const ConfigReader& inner);

  // Remembers an error of a combination of values; the first one counts.
  void reject(Error error);
  void reject(std::string_view key, std::string found, std::string accepted, std::string hint = {});

  // How a message names a key: "llama-2-7b: attn_config.alibi".
  [[nodiscard]] std::string subject_of(std::string_view key) const;

  [[nodiscard]] const std::optional<Error>& first_error() const { return error_; }
  [[nodiscard]] const std::string& name() const { return name_; }

 private:
  struct Found {
    std::string_view key;
    const facts::Value* value = nullptr;
  };
  [[nodiscard]] Found find(Keys keys) const;
  void reject_kind(const Found& found, std::string accepted);

  const facts::Value* config_;
  std::string name_;
  std::string prefix_;  // "attn_config." in the reader of a table
  std::optional<Error> error_;
};

}  // namespace steelyard::model
