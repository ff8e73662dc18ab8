#include "step/recomputed_modules.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>

namespace steelyard::step {

namespace {

using model::Block;
using model::Operator;
using model::OperatorKind;
using model::TensorRef;

using Names = std::initializer_list<std::string_view>;

std::vector<std::string_view> components_of(std::string_view path) {
  std::vector<std::string_view> all;
  for (std::size_t at = 0; at <= path.size();) {
    const std::size_t dot = std::min(path.find('.', at), path.size());
    all.push_back(path.substr(at, dot - at));
    at = dot + 1;
  }
  return all;
}

bool fits(std::string_view component, std::string_view pattern) {
  if (pattern != "*") return component == pattern;
  return !component.empty() &&
         std::ranges::all_of(component, [](char c) { return c >= '0' && c <= '9'; });
}

// The path of the module in an operator's name that the pattern names, anywhere in it; "": none.
std::string_view module_in(std::string_view name, const std::vector<std::string_view>& pattern) {
  const std::vector<std::string_view> path = components_of(name);
  for (std::size_t first = 0; first + pattern.size() <= path.size(); ++first) {
    if (!std::equal(pattern.begin(), pattern.end(),
                    path.begin() + static_cast<std::ptrdiff_t>(first),
                    [](auto wanted, auto found) { return fits(found, wanted); })) {
      continue;
    }
    const std::string_view last = path[first + pattern.size() - 1];
    return name.substr(0, static_cast<std::size_t>(last.data() + last.size() - name.data()));
  }
  return {};
}

bool begins_with(const Operator& op, Names names) {
  return std::any_of(names.begin(), names.end(), [&](std::string_view name) {
    return std::string_view(op.name).substr(0, name.size()) == name;
  });
}

class Parts {
 public:
  explicit Parts(const Block& block) : block_(block) {}

  // The run of operators whose names begin so; nothing where there are none.
  void add(Names names, Names hook = {}) {
    RecomputedPart part;
    const auto& ops = block_.operators;
    while (part.first < ops.size() && !begins_with(ops[part.first], names)) ++part.first;
    part.last = part.first;
    while (part.last < ops.size() && begins_with(ops[part.last], names)) ++part.last;
    if (part.first == part.last) return;
    for (std::size_t i = part.last; hook.size() > 0 && i < ops.size(); ++i) {
      if (begins_with(ops[i], hook)) part.hook = i;
    }
    if (hook.size() > 0 && part.hook == 0) return;
    find_ends(part);
    found.push_back(std::move(part));
  }

  void add_norm(std::string_view name, std::string_view hook) {
    for (const Operator& op : block_.operators) {
      if (op.name == name && !op.inside_next) return add({name}, {hook});
    }
  }

  // Every module of that path whose result alone is read behind it.
  void add_numbered(std::string_view path) {
    const std::vector<std::string_view> pattern = components_of(path);
    const auto& ops = block_.operators;
    for (std::size_t i = 0; i < ops.size();) {
      const std::string_view module = module_in(ops[i].name, pattern);
      RecomputedPart part;
      part.first = i;
      while (++i < ops.size() && !module.empty() && module_in(ops[i].name, pattern) == module) {
      }
      part.last = i;
      if (module.empty()) continue;
      find_ends(part);
      if (part.outputs.size() == 1) found.push_back(std::move(part));
    }
  }

  std::vector<RecomputedPart> found;

 private:
  static bool same(TensorRef a, TensorRef b) { return a.shared == b.shared && a.index == b.index; }
  static bool has(const std::vector<TensorRef>& list, TensorRef ref) {
    return std::any_of(list.begin(), list.end(), [&](TensorRef one) { return same(one, ref); });
  }

  // What comes in from outside, and what is read behind it.
  void find_ends(RecomputedPart& part) const {
    std::vector<TensorRef> made;
    for (std::size_t i = part.first; i < part.last; ++i) {
      for (std::int32_t weight : block_.operators[i].weights) {
        part.trains |= weight >= 0 && block_.weights[static_cast<std::size_t>(weight)].trains;
      }
      for (TensorRef ref : block_.operators[i].inputs) {
        if (ref.index < 0 || has(made, ref) || has(part.inputs, ref)) continue;
        part.inputs.push_back(ref);
      }
      for (TensorRef ref : block_.operators[i].outputs) made.push_back(ref);
    }
    for (TensorRef ref : made) {
      bool read = same(ref, block_.output);
      for (std::size_t i = part.last; i < block_.operators.size(); ++i) {
        read |= has(block_.operators[i].inputs, ref);
      }
      if (read) part.outputs.push_back(ref);
    }
  }

  const Block& block_;
};

bool is_megatrons(std::string_view module) {
  constexpr std::string_view kWords[] = {"core_attn", "layernorm", "mla_up_proj",   "mlp",
                                         "moe",       "moe_act",   "shared_experts"};
  return std::find(std::begin(kWords), std::end(kWords), module) != std::end(kWords);
}

}  // namespace

std::vector<RecomputedPart> recomputed_parts(const Block& block,
                                             const std::vector<std::string>& modules) {
  const auto wants = [&](std::string_view module) {
    return std::find(modules.begin(), modules.end(), module) != modules.end();
  };
  const bool mixture =
      std::any_of(block.operators.begin(), block.operators.end(),
                  [](const Operator& op) { return op.kind == OperatorKind::experts; });
  Parts parts(block);
  if (wants("layernorm")) parts.add_norm("input_layernorm", "self_attention.");
  if (wants("mla_up_proj")) {
    parts.add({"self_attention.q_layernorm", "self_attention.linear_q_up_proj",
               "self_attention.linear_q_proj", "self_attention.kv_layernorm",
               "self_attention.linear_kv_up_proj", "self_attention.latent"},
              {"self_attention.core_attention"});
  }
  if (mixture ? wants("moe") : wants("mlp")) {
    parts.add({"mlp."});
  } else if (wants("shared_experts")) {
    parts.add({"mlp.shared_experts."});
  }
  if (wants("layernorm")) parts.add_norm("pre_mlp_layernorm", "mlp.");
  for (const std::string& module : modules) {
    if (!is_megatrons(module)) parts.add_numbered(module);
  }
  std::sort(parts.found.begin(), parts.found.end(),
            [](const RecomputedPart& a, const RecomputedPart& b) { return a.first < b.first; });
  return std::move(parts.found);
}

namespace {

std::vector<std::string> words_of(const facts::FrameworkProfile& profile, std::string_view key,
                                  const facts::RecomputeKeys& keys) {
  if (keys.mode != facts::RecomputeMode::full || keys.every || keys.layers) return {};
  const auto word = profile.operators.find(key);
  if (word == profile.operators.end()) return {};
  std::vector<std::string> modules;
  for (std::string_view rest = word->second; !rest.empty();) {
    const std::size_t comma = std::min(rest.find(", "), rest.size());
    modules.emplace_back(rest.substr(0, comma));
    rest.remove_prefix(std::min(comma + 2, rest.size()));
  }
  return modules;
}

}  // namespace

std::vector<std::string> checkpointed_modules(const facts::FrameworkProfile& profile,
                                              const facts::RecomputeKeys& keys) {
  return words_of(profile, "checkpointed_modules", keys);
}

std::vector<std::string> checkpointed_layer_modules(const facts::FrameworkProfile& profile,
                                                    const facts::RecomputeKeys& keys) {
  return words_of(profile, "checkpointed_layer_modules", keys);
}

}  // namespace steelyard::step
