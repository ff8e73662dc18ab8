// Numbers and names in a network described as data (model/layered.cpp): a text that begins with "="
// is an expression, "{name}" inside of any other text stands for a variable.
//
//   "=in * expansion"   "=ceil(depth * 1.8)"   "=index == 0 ? 2 : 1"   "=widths[2] // 4"
//
// Operators: ? : && || == != < <= > >= + - * / // % and the sign; // rounds down. Functions: min,
// max, round, floor, ceil, and divisible(x, n), the nearest multiple of n that is not below 0.9 x
// (the rounding of channels in MobileNet and EfficientNet: timm/layers/helpers.py, make_divisible).
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "facts/value.h"

namespace steelyard::model {

// What the names stand for: numbers, truth values, texts, lists of numbers.
using Scope = std::map<std::string, facts::Value, std::less<>>;

// Nothing when the text is no expression, or names what `scope` does not have.
[[nodiscard]] std::optional<double> evaluate(std::string_view expression, const Scope& scope);

// A number or a truth value as it stands, or the expression behind "=".
[[nodiscard]] std::optional<double> number_of(const facts::Value& value, const Scope& scope);

// The text with its variables; nothing when one is unknown or a list.
[[nodiscard]] std::optional<std::string> filled(std::string_view text, const Scope& scope);

// The value with its variables and expressions resolved: a number or a text; lists and tables
// stay as they are.
[[nodiscard]] std::optional<facts::Value> resolved(const facts::Value& value, const Scope& scope);

}  // namespace steelyard::model
