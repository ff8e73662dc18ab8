// One layer of a network described as data, as its reader sees it: an object whose first key is the
// kind, `{ conv = "conv1", out = 64, kernel = 7 }`. What is wrong is remembered, the first thing
// counts, and reading goes on with the default.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "model/config_reader.h"
#include "model/layer_values.h"

namespace steelyard::model {

// The first mistake of a description.
struct LayerFault {
  std::string subject, found, accepted;
};

class LayerArguments {
 public:
  LayerArguments(const facts::Object& layer, const Scope& scope, std::optional<LayerFault>& fault);

  [[nodiscard]] const std::string& kind() const { return kind_; }
  [[nodiscard]] bool has(std::string_view key);

  // Under the key; `kind()` itself is the key of the first value.
  [[nodiscard]] std::int64_t whole(std::string_view key, std::int64_t fallback, Limits limits);
  [[nodiscard]] double real(std::string_view key, double fallback, double least, double most);
  [[nodiscard]] bool flag(std::string_view key, bool fallback);
  [[nodiscard]] std::string text(std::string_view key, std::string_view fallback);
  // Whole numbers from 1.
  [[nodiscard]] std::vector<std::int64_t> wholes(std::string_view key);
  [[nodiscard]] std::vector<std::string> texts(std::string_view key);
  [[nodiscard]] ActivationKind activation(std::string_view key);
  // A list of layers or of lists; empty when absent.
  [[nodiscard]] const facts::Array& list(std::string_view key);
  // Every other member, resolved: the variables of a named block.
  [[nodiscard]] Scope others();

  void reject(std::string_view key, std::string found, std::string accepted);
  // A key that nobody asked for is a slip of the pen.
  void finish();

 private:
  [[nodiscard]] const facts::Value* find(std::string_view key);

  const facts::Object& layer_;
  const Scope& scope_;
  std::optional<LayerFault>& fault_;
  std::string kind_;
  std::set<std::string, std::less<>> asked_;
};

}  // namespace steelyard::model
