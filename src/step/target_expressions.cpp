#include "step/target_expressions.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <regex>
#include <utility>

#include "step/adapter_targets.h"
#include "step/by_layer.h"

namespace steelyard::step {

namespace {

constexpr std::size_t kLongestExpression = 512;  // characters

Error refused(const std::string& target, std::string found, std::string accepted,
              std::string hint = {}) {
  return {.code = ErrorCode::bad_input,
          .subject = "train.lora.targets",
          .found = target + (found.empty() ? "" : ": " + found),
          .accepted = std::move(accepted),
          .hint = std::move(hint)};
}

// libstdc++'s matcher without backtracking: no expression takes longer than its length times the
// name's. It knows no back references.
Result<std::regex> compiled(const std::string& target) {
  if (target.size() > kLongestExpression) {
    return fail(refused(target.substr(0, 40) + "...", fmt::format("{} characters", target.size()),
                        fmt::format("at most {}", kLongestExpression)));
  }
  if (target.find('{') != std::string::npos) {
    return fail(refused(target, "a counted repeat", "an expression without braces",
                        "write the repeats out, or + and *"));
  }
  try {
    return std::regex(target,
                      std::regex_constants::ECMAScript | std::regex_constants::__polynomial);
  } catch (const std::regex_error& error) {
    return fail(refused(target, std::string("no regular expression (") + error.what() + ")",
                        "an expression without back references and named groups"));
  }
}

// "experts.7.up_proj" -> "experts.*.up_proj": the experts of a layer are one target.
std::string of_all_experts(std::string_view module) {
  constexpr std::string_view kExperts = "experts.";
  const std::size_t at = module.find(kExperts);
  if (at == std::string_view::npos) return std::string(module);
  const std::size_t number = at + kExperts.size();
  const std::size_t end = module.find_first_not_of("0123456789", number);
  if (end == number || end == std::string_view::npos) return std::string(module);
  return fmt::format("{}*{}", module.substr(0, number), module.substr(end));
}

// What an expression says of one module in one place: a layer, or a block that is none.
struct Place {
  std::string stack;  // the block's name; empty of what is no layer
  std::int64_t layer = 0;
  bool named = false;
};

// By the module's name in its block.
using Places = std::map<std::string, std::vector<Place>, std::less<>>;

// Errors: an expression that tells experts of one layer apart.
Result<Places> places_of(const model::Graph& graph, const std::string& target,
                         const std::regex& expression) {
  Places found;
  std::optional<Error> apart;
  (void)by_layer(graph, [&](model::Block& block, std::size_t, const std::string& prefix) {
    Place here;
    if (!prefix.empty()) {
      here.stack = block.name;
      here.layer = std::stoll(prefix.substr(block.name.size() + 1));
    }
    const auto match = [&](std::string_view module, std::string key) {
      here.named = std::regex_match(prefix + std::string(module), expression);
      std::vector<Place>& places = found[key];
      const bool again =
          !places.empty() && places.back().stack == here.stack && places.back().layer == here.layer;
      if (!again) return places.push_back(here);
      if (places.back().named != here.named && key.find('*') != std::string::npos && !apart) {
        apart = refused(target, fmt::format("some of {}{}", prefix, key),
                        "all experts of a layer, or none");
      }
      places.back().named |= here.named;
    };
    for (const model::Operator& op : block.operators) {
      if (op.weights.empty()) continue;
      if (!holds_expert_modules(op)) {
        match(op.name, op.name);
        continue;
      }
      for (const std::int32_t weight : op.weights) {
        if (weight < 0) continue;
        const auto module = module_of(block.weights[static_cast<std::size_t>(weight)].name);
        match(module, of_all_experts(module));
      }
    }
  });
  if (apart) return fail(std::move(*apart));
  return found;
}

// Targets that name the places: the module's own name where it is named everywhere, with the
// stack's before it where it is in all layers of one, else with the layer's.
void add_targets(const std::string& module, const std::vector<Place>& places,
                 std::vector<std::string>& all) {
  const auto add = [&](std::string target) {
    if (std::find(all.begin(), all.end(), target) == all.end()) all.push_back(std::move(target));
  };
  const auto named = [](const Place& place) { return place.named; };
  if (std::all_of(places.begin(), places.end(), named)) return add(module);
  for (const Place& place : places) {
    if (!place.named) continue;
    const bool whole = std::all_of(places.begin(), places.end(), [&](const Place& other) {
      return other.named || other.stack != place.stack;
    });
    if (place.stack.empty()) {
      add(module);
    } else {
      add(fmt::format("{}.{}.{}", place.stack, whole ? "*" : std::to_string(place.layer), module));
    }
  }
}

}  // namespace

bool is_expression(std::string_view target) {
  return target.find_first_of("()[]|\\^$+?{}") != std::string_view::npos ||
         target.find(".*") != std::string_view::npos;
}

Result<std::vector<std::string>> with_expressions_matched(const model::Graph& graph,
                                                          const std::vector<std::string>& targets) {
  std::vector<std::string> all;
  for (const std::string& target : targets) {
    if (!is_expression(target)) {
      all.push_back(target);
      continue;
    }
    STEELYARD_TRY(expression, compiled(target));
    const std::size_t before = all.size();
    STEELYARD_TRY(found, places_of(graph, target, expression));
    for (const auto& [module, places] : found) add_targets(module, places, all);
    if (all.size() > before) continue;
    return fail(refused(target, "it matches no module",
                        "an expression that matches whole names, model.layers.0.self_attn.q_proj",
                        "PEFT matches the whole name: begin with .*"));
  }
  return all;
}

}  // namespace steelyard::step
