#include "step/target_expressions.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <regex>
#include <utility>

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

bool is_layer(const model::Block& block) {
  constexpr std::array<std::string_view, 3> kOthers = {"embed", "middle", "head"};
  return std::find(kOthers.begin(), kOthers.end(), block.name) == kOthers.end();
}

struct Matches {
  std::int64_t yes = 0, no = 0;
};

// By the module's name in its block; alike names of several stacks are one target.
std::map<std::string, Matches, std::less<>> matched(const model::Graph& graph,
                                                    const std::regex& expression) {
  std::map<std::string, Matches, std::less<>> found;
  std::map<std::string, std::int64_t> next;  // number of the layer, by the stack's name
  for (const model::Segment& segment : graph.segments) {
    for (std::int64_t i = 0; i < segment.repeat; ++i) {
      for (const model::Block& block : segment.blocks) {
        std::string prefix;
        if (is_layer(block)) prefix = fmt::format("{}.{}.", block.name, next[block.name]++);
        for (const model::Operator& op : block.operators) {
          if (op.weights.empty()) continue;
          Matches& of = found[op.name];
          const bool matches = std::regex_match(prefix + op.name, expression);
          ++(matches ? of.yes : of.no);
        }
      }
    }
  }
  return found;
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
    for (const auto& [module, matches] : matched(graph, expression)) {
      if (matches.yes == 0) continue;
      if (matches.no > 0) {
        return fail(refused(
            target,
            fmt::format("{} of {} modules {}", matches.yes, matches.yes + matches.no, module),
            "an expression that matches a module in all layers that have it, or in none",
            "adapters of some layers alone are not built"));
      }
      if (std::find(all.begin(), all.end(), module) == all.end()) all.push_back(module);
    }
    if (all.size() > before) continue;
    return fail(refused(target, "it matches no module",
                        "an expression that matches whole names, model.layers.0.self_attn.q_proj",
                        "PEFT matches the whole name: begin with .*"));
  }
  return all;
}

}  // namespace steelyard::step
