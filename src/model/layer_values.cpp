#include "model/layer_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <vector>

namespace steelyard::model {

namespace {

constexpr int kDeepest = 32;  // brackets inside of brackets

bool is_name_part(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

double divisible(double value, double step) {
  const double nearest = std::max(step, std::floor((value + step / 2.0) / step) * step);
  return nearest < 0.9 * value ? nearest + step : nearest;
}

std::optional<double> applied(std::string_view function, const std::vector<double>& values) {
  if (function == "min" && values.size() == 2) return std::min(values[0], values[1]);
  if (function == "max" && values.size() == 2) return std::max(values[0], values[1]);
  if (function == "divisible" && values.size() == 2 && values[1] > 0.0) {
    return divisible(values[0], values[1]);
  }
  if (values.size() != 1) return std::nullopt;
  if (function == "round") return std::nearbyint(values[0]);  // Python's: halves to even
  if (function == "floor") return std::floor(values[0]);
  if (function == "ceil") return std::ceil(values[0]);
  return std::nullopt;
}

// A recursive descent over the text; the first thing that is wrong ends it.
class Expression {
 public:
  Expression(std::string_view text, const Scope& scope) : rest_(text), scope_(scope) {}

  std::optional<double> value() {
    const double result = choice();
    skip();
    if (wrong_ || !rest_.empty() || !std::isfinite(result)) return std::nullopt;
    return result;
  }

 private:
  void skip() {
    while (!rest_.empty() && rest_.front() == ' ') rest_.remove_prefix(1);
  }
  bool take(std::string_view token) {
    skip();
    if (!rest_.starts_with(token)) return false;
    rest_.remove_prefix(token.size());
    return true;
  }
  double fault() {
    wrong_ = true;
    rest_ = {};
    return 0.0;
  }

  double choice() {
    if (++depth_ > kDeepest) return fault();
    const double condition = either();
    double result = condition;
    if (take("?")) {
      const double yes = choice();
      if (!take(":")) return fault();
      const double no = choice();
      result = condition != 0.0 ? yes : no;
    }
    --depth_;
    return result;
  }
  double either() {
    double left = both();
    while (take("||")) {
      const double right = both();
      left = left != 0.0 || right != 0.0 ? 1.0 : 0.0;
    }
    return left;
  }
  double both() {
    double left = comparison();
    while (take("&&")) {
      const double right = comparison();
      left = left != 0.0 && right != 0.0 ? 1.0 : 0.0;
    }
    return left;
  }
  double comparison() {
    const double left = sum();
    if (take("==")) return left == sum() ? 1.0 : 0.0;
    if (take("!=")) return left != sum() ? 1.0 : 0.0;
    if (take("<=")) return left <= sum() ? 1.0 : 0.0;
    if (take(">=")) return left >= sum() ? 1.0 : 0.0;
    if (take("<")) return left < sum() ? 1.0 : 0.0;
    if (take(">")) return left > sum() ? 1.0 : 0.0;
    return left;
  }
  double sum() {
    double left = product();
    while (!wrong_) {
      if (take("+")) {
        left += product();
      } else if (take("-")) {
        left -= product();
      } else {
        break;
      }
    }
    return left;
  }
  double product() {
    double left = signed_one();
    while (!wrong_) {
      if (take("*")) {
        left *= signed_one();
      } else if (take("//")) {
        left = std::floor(left / signed_one());
      } else if (take("/")) {
        left /= signed_one();
      } else if (take("%")) {
        const double by = signed_one();
        left -= std::floor(left / by) * by;
      } else {
        break;
      }
    }
    return left;
  }
  double signed_one() {
    double sign = 1.0;
    while (take("-")) sign = -sign;
    return sign * primary();
  }
  double primary() {
    if (take("(")) {
      const double inside = choice();
      return take(")") ? inside : fault();
    }
    skip();
    if (!rest_.empty() && rest_.front() >= '0' && rest_.front() <= '9') return literal();
    std::size_t length = 0;
    while (length < rest_.size() && is_name_part(rest_[length])) ++length;
    if (length == 0) return fault();
    const std::string_view name = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return take("(") ? call(name) : variable(name);
  }
  double literal() {
    double number = 0.0;
    const auto [end, trouble] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), number);
    if (trouble != std::errc()) return fault();
    rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
    return number;
  }
  double call(std::string_view function) {
    std::vector<double> values = {choice()};
    while (take(",")) values.push_back(choice());
    if (wrong_ || !take(")")) return fault();
    const std::optional<double> result = applied(function, values);
    return result ? *result : fault();
  }
  double variable(std::string_view name) {
    const auto found = scope_.find(name);
    if (found == scope_.end()) return fault();
    const facts::Value* value = &found->second;
    if (take("[")) {
      const double place = choice();
      const facts::Array* items = value->as_array();
      if (!take("]") || items == nullptr || !(place >= 0.0) ||
          place >= static_cast<double>(items->size())) {
        return fault();
      }
      value = &(*items)[static_cast<std::size_t>(place)];
    }
    if (const bool* b = value->as_bool()) return *b ? 1.0 : 0.0;
    if (const std::int64_t* n = value->as_whole()) return static_cast<double>(*n);
    if (const double* x = value->as_real()) return *x;
    return fault();
  }

  std::string_view rest_;
  const Scope& scope_;
  int depth_ = 0;
  bool wrong_ = false;
};

}  // namespace

std::optional<double> evaluate(std::string_view expression, const Scope& scope) {
  return Expression(expression, scope).value();
}

std::optional<double> number_of(const facts::Value& value, const Scope& scope) {
  if (const bool* b = value.as_bool()) return *b ? 1.0 : 0.0;
  if (const std::int64_t* n = value.as_whole()) return static_cast<double>(*n);
  if (const double* x = value.as_real()) return *x;
  const std::string* text = value.as_text();
  if (text == nullptr || !text->starts_with("=")) return std::nullopt;
  return evaluate(std::string_view(*text).substr(1), scope);
}

std::optional<std::string> filled(std::string_view text, const Scope& scope) {
  std::string result;
  while (!text.empty()) {
    const std::size_t open = text.find('{');
    result += text.substr(0, open);
    if (open == std::string_view::npos) break;
    const std::size_t close = text.find('}', open);
    if (close == std::string_view::npos) return std::nullopt;
    const std::string_view name = text.substr(open + 1, close - open - 1);
    text.remove_prefix(close + 1);
    const auto found = scope.find(name);
    if (found != scope.end() && found->second.as_text() != nullptr) {
      result += *found->second.as_text();
      continue;
    }
    const std::optional<double> number = evaluate(name, scope);
    if (!number) return std::nullopt;
    result += fmt::format("{}", *number);
  }
  return result;
}

std::optional<facts::Value> resolved(const facts::Value& value, const Scope& scope) {
  if (const std::string* text = value.as_text(); text != nullptr && !text->starts_with("=")) {
    std::optional<std::string> result = filled(*text, scope);
    if (!result) return std::nullopt;
    return facts::Value(std::move(*result));
  }
  if (value.as_array() != nullptr || value.as_object() != nullptr) return value;
  const std::optional<double> number = number_of(value, scope);
  if (!number) return std::nullopt;
  return facts::Value(*number);
}

}  // namespace steelyard::model
