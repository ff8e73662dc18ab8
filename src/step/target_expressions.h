// Targets of adapters written as PEFT's regular expressions: target_modules = ".*\.(q|v)_proj".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "model/graph.h"

namespace steelyard::step {

// Whether a target is an expression: it has a sign that no name of a module and no pattern with `*`
// has.
[[nodiscard]] bool is_expression(std::string_view target);

// The targets with the modules that each expression matches in its place. As PEFT does, it has to
// match a module's whole name, "model.layers.3.self_attn.q_proj" (peft/tuners/tuners_utils.py,
// check_target_module_exists: re.fullmatch). A module that it matches in every layer is named as it
// is; of one stack among several "language_model.layers.*.self_attn.q_proj", of single layers
// "model.layers.3.self_attn.q_proj".
// Errors: also what is no expression, and one that matches nothing.
[[nodiscard]] Result<std::vector<std::string>> with_expressions_matched(
    const model::Graph& graph, const std::vector<std::string>& targets);

}  // namespace steelyard::step
