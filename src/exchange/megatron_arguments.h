// Megatron-LM's arguments under their own names, checked against the table of known ones
// (catalog/import/megatron.toml): misspelt and refused ones are errors, ignored ones are dropped,
// absent ones have Megatron's default.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "facts/value.h"

namespace steelyard::exchange {

class MegatronArguments {
 public:
  // `given`: the object itself, the path of a .yaml, .json, .toml or other text file with a command
  // line (relative to `folder`), or a command line as text. `versions`: what the job says of its
  // software, by package; null: nothing.
  [[nodiscard]] static Result<MegatronArguments> read(const facts::Value& given,
                                                      const std::filesystem::path& folder,
                                                      const facts::Value& table,
                                                      const facts::Value& versions = {});

  // Values by name; the default of the table when absent. Asking for a name that is not
  // `understood` in the table, or of another kind, is a fault of the caller.
  [[nodiscard]] bool flag(std::string_view name) const;
  [[nodiscard]] std::int64_t whole(std::string_view name) const;
  [[nodiscard]] std::optional<std::int64_t> optional_whole(std::string_view name) const;
  [[nodiscard]] double real(std::string_view name) const;
  [[nodiscard]] std::string text(std::string_view name) const;  // "" when it has no default
  [[nodiscard]] std::vector<std::string> list(std::string_view name) const;
  [[nodiscard]] bool given(std::string_view name) const { return values_.contains(name); }
  // Arguments that are no whole command line leave the flag out, and a run that is described so has
  // it anyway (table `description`).
  [[nodiscard]] bool assumed(std::string_view name) const {
    return !given(name) && assumed_.contains(name);
  }
  // Values that are assumed so, as "name = value"; they count as given from here on.
  [[nodiscard]] const std::vector<std::string>& assumed_values() const { return assumed_values_; }
  // Of the table: an engine with switches of its own, of which nothing is assumed.
  [[nodiscard]] const std::set<std::string, std::less<>>& other_engines() const {
    return other_engines_;
  }
  // As it would stand in a configuration: null when absent and without a default.
  [[nodiscard]] facts::Value value(std::string_view name) const;

  // "import.megatron.num-layers": how messages name an argument.
  [[nodiscard]] static std::string subject(std::string_view name);

 private:
  struct Known {
    std::string kind;  // whole, real, flag, text, list
    facts::Value otherwise;
  };
  using KnownArguments = std::map<std::string, Known, std::less<>>;

  [[nodiscard]] static KnownArguments known_arguments(const facts::Value& table);
  [[nodiscard]] Result<void> take(std::string name, const facts::Value& value,
                                  const facts::Value& table);
  [[nodiscard]] Result<bool> take_alias(const std::string& name, const facts::Value& value,
                                        const facts::Value& table);
  [[nodiscard]] Result<void> keep(const std::string& name, const facts::Value& value);
  // Of a description: what the recipes of a mixture whose experts are spread set, unless it or the
  // software's versions say otherwise.
  [[nodiscard]] Result<void> assume_of_spread_experts(const facts::Value& table,
                                                      const facts::Value& versions);
  [[nodiscard]] Result<void> assume(const facts::Value& values);

  KnownArguments known_;
  std::map<std::string, facts::Value, std::less<>> values_;
  std::set<std::string, std::less<>> assumed_;  // empty of a whole command line
  std::vector<std::string> assumed_values_;     // the same
  std::set<std::string, std::less<>> other_engines_;
  std::set<std::string, std::less<>> neutral_;  // refused ones, given as what does nothing
};

}  // namespace steelyard::exchange
