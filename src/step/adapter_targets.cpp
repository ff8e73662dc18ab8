#include "step/adapter_targets.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <map>
#include <optional>
#include <utility>

#include "base/suggest.h"
#include "step/adapters.h"
#include "step/assembler.h"
#include "step/target_expressions.h"

namespace steelyard::step {

namespace {

using model::OperatorKind;

constexpr std::int64_t kMatricesOfExpert = 3;

std::string last_part(std::string_view name) {
  const std::size_t dot = name.rfind('.');
  return std::string(dot == std::string_view::npos ? name : name.substr(dot + 1));
}

template <class Visit>
void for_each(const model::Graph& graph, const Visit& visit) {
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      for (const model::Operator& op : block.operators) visit(block, op);
    }
  }
}

// Last parts of the names of what adapters can stand beside, each once, in their order.
std::vector<std::string> last_parts(const model::Graph& graph) {
  std::vector<std::string> known;
  const auto add = [&](std::string_view module) {
    std::string name = last_part(module);
    if (std::find(known.begin(), known.end(), name) == known.end())
      known.push_back(std::move(name));
  };
  for_each(graph, [&](const model::Block& block, const model::Operator& op) {
    if (op.kind == OperatorKind::linear || is_linear_router(op)) add(op.name);
    if (!holds_expert_modules(op)) return;
    for (std::size_t i = 0; i < kMatricesOfExpert; ++i) {
      add(module_of(block.weights[static_cast<std::size_t>(op.weights[i])].name));
    }
  });
  return known;
}

bool names_a_part(const model::Block& block, const model::Operator& op, std::string_view target) {
  constexpr std::array<std::string_view, 5> kParts = {"q_proj", "k_proj", "v_proj", "gate_proj",
                                                      "up_proj"};
  return std::find(kParts.begin(), kParts.end(), target) != kParts.end() &&
         op.kind == OperatorKind::linear && split_of(block, op) != nullptr;
}

struct Named {
  bool any = false;
  std::string unbuilt;  // the first module that the target names and adapters are not built for
  std::string why;
};

// Why an operator's modules have no adapters.
std::string reason(const model::Operator& op, bool dispatched) {
  if (op.kind == OperatorKind::experts) {
    return dispatched ? "adapters of experts whose tokens travel between ranks are not built"
                      : "one parameter holds the matrices of all experts there, which is no module "
                        "that an adapter could stand beside";
  }
  if (op.kind == OperatorKind::conv || op.kind == OperatorKind::normed_conv) {
    return "adapters of grouped, transposed and normed convolutions are not built";
  }
  return "adapters stand beside linears, convolutions of one group and embeddings";
}

// Layers of each name.
std::map<std::string, std::int64_t, std::less<>> layers_of(const model::Graph& graph) {
  std::map<std::string, std::int64_t, std::less<>> layers;
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) layers[block.name] += segment.repeat;
  }
  return layers;
}

// The module in some layer of the block's name.
bool names_somewhere(std::string_view target, const model::Block& block, std::int64_t layers,
                     std::string_view module) {
  if (names_module(target, module)) return true;
  if (!tells_layers_apart(target) || !is_layer(block)) return false;
  if (!target.ends_with(last_part(module)) && !target.ends_with('*')) return false;
  for (std::int64_t i = 0; i < layers; ++i) {
    if (names_module_of_layer(target, fmt::format("{}.{}.", block.name, i), module)) return true;
  }
  return false;
}

Named named_by(const model::Graph& graph, std::string_view target, const TargetRules& rules) {
  Named named;
  const auto layers = layers_of(graph);
  const auto find = [&](const model::Block& block, const model::Operator& op,
                        std::string_view module, bool adaptable) {
    if (!names_somewhere(target, block, layers.at(block.name), module)) return;
    named.any |= adaptable;
    if (adaptable || !named.unbuilt.empty()) return;
    named.unbuilt = module;
    named.why = reason(op, rules.dispatched_experts && holds_expert_modules(op));
  };
  for_each(graph, [&](const model::Block& block, const model::Operator& op) {
    const bool experts = holds_expert_modules(op) && !rules.dispatched_experts;
    const bool router = is_linear_router(op) && rules.dispatched_experts;
    if (is_adaptable(op) && !router) {
      find(block, op, op.name, true);
      named.any |= rules.fused_parts && names_a_part(block, op, target);
      return;
    }
    if (op.weights.empty()) return;
    for (const std::int32_t weight : op.weights) {
      if (weight < 0) continue;
      find(block, op, module_of(block.weights[static_cast<std::size_t>(weight)].name), experts);
    }
  });
  return named;
}

Error refused(const model::Graph& graph, const std::string& target, std::string hint) {
  return {.code = ErrorCode::bad_input,
          .subject = "train.lora.targets",
          .found = target,
          .accepted = known_targets(graph),
          .hint = std::move(hint)};
}

// Weights that no operator reads are those of companions, which have adapters of their own
// (step/companions.h).
bool names_companion(const model::Graph& graph, std::string_view target) {
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      std::vector<bool> read(block.weights.size(), false);
      for (const model::Operator& op : block.operators) {
        for (const std::int32_t weight : op.weights) {
          if (weight >= 0) read[static_cast<std::size_t>(weight)] = true;
        }
      }
      for (std::size_t i = 0; i < read.size(); ++i) {
        if (!read[i] && names_module(target, module_of(block.weights[i].name))) return true;
      }
    }
  }
  return false;
}

// Names of linears in models of other families: a list of targets written for several of them is
// no slip of the pen (peft/utils/constants.py and the families of src/model).
bool is_usual(std::string_view target) {
  constexpr std::array<std::string_view, 44> kUsual = {"q_proj",
                                                       "k_proj",
                                                       "v_proj",
                                                       "o_proj",
                                                       "out_proj",
                                                       "qkv_proj",
                                                       "qkv",
                                                       "gate_proj",
                                                       "up_proj",
                                                       "down_proj",
                                                       "gate_up_proj",
                                                       "c_attn",
                                                       "c_proj",
                                                       "c_fc",
                                                       "query",
                                                       "key",
                                                       "value",
                                                       "query_proj",
                                                       "key_proj",
                                                       "value_proj",
                                                       "dense",
                                                       "dense_h_to_4h",
                                                       "dense_4h_to_h",
                                                       "fc1",
                                                       "fc2",
                                                       "query_key_value",
                                                       "w1",
                                                       "w2",
                                                       "w3",
                                                       "to_q",
                                                       "to_k",
                                                       "to_v",
                                                       "to_out.0",
                                                       "Wqkv",
                                                       "q_lin",
                                                       "k_lin",
                                                       "v_lin",
                                                       "out_lin",
                                                       "in_proj",
                                                       "x_proj",
                                                       "wi_0",
                                                       "wi_1",
                                                       "wo",
                                                       "lm_head"};
  return std::find(kUsual.begin(), kUsual.end(), target) != kUsual.end();
}

Error names_nothing(const model::Graph& graph, const std::string& target) {
  const auto nearest = nearest_name(target, last_parts(graph));
  return refused(graph, target,
                 nearest ? "did you mean " + *nearest + "?" : "name linears that the model has");
}

}  // namespace

bool holds_expert_modules(const model::Operator& op) {
  return op.kind == OperatorKind::experts && !op.mixture.stacked() &&
         std::ssize(op.weights) == kMatricesOfExpert * op.mixture.experts;
}

// Llama 4's router gives two results, which PEFT's layer cannot add to.
bool is_linear_router(const model::Operator& op) {
  return op.kind == OperatorKind::router && !op.mixture.wide_router && !op.mixture.router_bias &&
         op.mixture.code != model::ExpertCode::dense;
}

bool is_adaptable(const model::Operator& op) {
  if (op.kind == OperatorKind::linear || op.kind == OperatorKind::embedding) return true;
  if (is_linear_router(op)) return true;
  return op.kind == OperatorKind::conv && op.groups == 1 && !op.transposed && op.inputs.size() == 1;
}

std::string_view module_of(std::string_view weight) {
  const std::size_t dot = weight.rfind('.');
  if (dot == std::string_view::npos) return weight;
  const std::string_view last = weight.substr(dot + 1);
  return last == "weight" || last == "bias" ? weight.substr(0, dot) : weight;
}

std::string known_targets(const model::Graph& graph) {
  std::string names = std::string(kAllLinear);
  for (const std::string& name : last_parts(graph)) names += ", " + name;
  return names;
}

Result<void> check_targets(const model::Graph& graph, const std::vector<std::string>& targets,
                           const TargetRules& rules) {
  bool any = false;
  std::optional<Error> nothing;
  for (const std::string& target : targets) {
    if (target == kAllLinear) {
      any = true;
      continue;
    }
    const Named named = named_by(graph, target, rules);
    if (!named.unbuilt.empty()) {
      return fail(Error{.code = ErrorCode::not_supported,
                        .subject = "train.lora.targets",
                        .found = target + ", which names " + named.unbuilt,
                        .accepted = known_targets(graph),
                        .hint = named.why});
    }
    any |= named.any;
    if (named.any || nothing || names_companion(graph, target)) continue;
    const bool misspelt = !is_usual(target) && nearest_name(target, last_parts(graph)).has_value();
    if (misspelt || is_expression(target)) return fail(names_nothing(graph, target));
    nothing = names_nothing(graph, target);
  }
  if (!any && nothing) return fail(std::move(*nothing));
  return {};
}

std::vector<std::string> idle_targets(const model::Graph& graph,
                                      const std::vector<std::string>& targets, bool fused_parts) {
  std::vector<std::string> idle;
  for (const std::string& target : targets) {
    if (target == kAllLinear) continue;
    if (!named_by(graph, target, {.fused_parts = fused_parts}).any) idle.push_back(target);
  }
  return idle;
}

const model::Operator* split_of(const model::Block& block, const model::Operator& op) {
  std::int32_t result = op.outputs.front().index;
  for (const model::Operator& other : block.operators) {
    if (other.inputs.empty() || other.inputs.front().shared) continue;
    if (other.inputs.front().index != result) continue;
    if (other.kind == OperatorKind::split || other.fused_gate_up) return &other;
    if (other.kind == OperatorKind::heads) result = other.outputs.front().index;
  }
  return nullptr;
}

std::vector<std::string> default_targets(const model::Graph& graph) {
  using Targets = std::vector<std::string>;
  // llama and most others; bert, roberta, electra; deberta-v2; t5, mt5; diffusers
  // (examples/dreambooth/train_dreambooth_lora.py and its kin).
  static const std::array<Targets, 5> kUsual = {{{"q_proj", "v_proj"},
                                                 {"query", "value"},
                                                 {"query_proj", "value_proj"},
                                                 {"q", "v"},
                                                 {"to_k", "to_q", "to_v", "to_out.0"}}};
  for (const Targets& usual : kUsual) {
    const bool there = std::all_of(usual.begin(), usual.end(), [&](const std::string& target) {
      return named_by(graph, target, {}).any;
    });
    if (there) return usual;
  }
  Targets fused;  // gpt2, bloom, falcon, gpt_neox, mpt: the projection of all three
  for_each(graph, [&](const model::Block& block, const model::Operator& op) {
    if (op.kind != OperatorKind::linear) return;
    const model::Operator* split = split_of(block, op);
    if (split == nullptr || split->kind != OperatorKind::split) return;
    std::string name = last_part(op.name);
    if (std::find(fused.begin(), fused.end(), name) == fused.end())
      fused.push_back(std::move(name));
  });
  return fused;
}

}  // namespace steelyard::step
