#include "step/adapters.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "step/adapter_targets.h"
#include "step/assembler.h"
#include "step/by_layer.h"
#include "step/frozen_parts.h"
#include "step/fused_adapters.h"

namespace steelyard::step {

namespace {

using facts::Method;
using model::OperatorKind;
using model::WeightRole;

// Parts of fused projections, in the order in which the model's code splits them.
struct FusedPart {
  std::string_view name;
  std::size_t index;
  bool gate;
};
constexpr std::array<FusedPart, 5> kFusedParts = {{{"q_proj", 0, false},
                                                   {"k_proj", 1, false},
                                                   {"v_proj", 2, false},
                                                   {"gate_proj", 0, true},
                                                   {"up_proj", 1, true}}};

Result<bool> word(const facts::FrameworkProfile& profile, std::string_view key, std::string_view no,
                  std::string_view yes) {
  const auto entry = profile.operators.find(key);
  if (entry == profile.operators.end() || entry->second == no) return false;
  if (entry->second == yes) return true;
  return fail({ErrorCode::bad_input,
               "framework profile " + profile.name + ", operators." + std::string(key),
               entry->second,
               std::string(no) + ", " + std::string(yes),
               "correct the profile in catalog/frameworks",
               "",
               {}});
}

class LowRank {
 public:
  LowRank(model::Graph graph, const facts::Job& job, const AdapterHabits& habits)
      : graph_(std::move(graph)), job_(job), habits_(habits) {}

  Result<model::Graph> apply();

 private:
  struct Place {
    bool embeds = false, heads = false;
    std::string prefix;  // "model.layers.3.", where targets tell layers apart
  };

  [[nodiscard]] const std::vector<std::string>& targets() const { return job_.train.lora.targets; }
  void change(model::Block& block, const Place& place);
  void freeze(model::Block& block, const Place& place);
  void quantize(model::Block& block, const Place& place) const;
  void adapt(model::Block& block, const Place& place);
  void adapt_parts(model::Block& block, model::Operator& op);
  void add_adapter(model::Block& block, model::Operator& op, std::int64_t rank,
                   std::int64_t outputs) const;
  void adapt_experts(model::Block& block, model::Operator& op, const Place& place) const;
  [[nodiscard]] bool dispatches() const {
    const facts::ParallelKeys& parallel = job_.parallel;
    return habits_.dispatched_experts || parallel.expert > 1 || parallel.expert_tensor > 1;
  }
  [[nodiscard]] bool targeted(const model::Operator& op, const Place& place) const;
  void train_modules(model::Block& block);
  [[nodiscard]] bool fuses() const;

  model::Graph graph_;
  const facts::Job& job_;
  const AdapterHabits& habits_;
  bool any_ = false;  // an adapter or a trained module
};

// The base, but for what the job lets train beside the adapters.
void LowRank::freeze(model::Block& block, const Place& place) {
  const std::string any = is_layer(block) ? block.name + ".#." : "";
  for (model::Weight& weight : block.weights) {
    if (weight.adapter) continue;
    const std::string full = (place.prefix.empty() ? any : place.prefix) + weight.name;
    const auto& open = job_.train.trainable;
    const bool named = std::any_of(open.begin(), open.end(), [&](const std::string& pattern) {
      return names_part(pattern, full);
    });
    weight.trains = weight.trains && named;
    if (weight.trains) weight.quantized = false;
    any_ |= weight.trains;
  }
}

void LowRank::quantize(model::Block& block, const Place& place) const {
  if (job_.train.base_quantization == facts::BaseQuantization::none) return;
  if (place.embeds || (place.heads && !habits_.quantizes_head)) return;
  for (const model::Operator& op : block.operators) {
    // bitsandbytes replaces nn.Linear alone: routers and experts that hold parameters of their own
    // stay as they are.
    if (op.kind == OperatorKind::router && (op.mixture.wide_router || op.mixture.router_bias)) {
      continue;
    }
    if (op.kind == OperatorKind::linear || op.kind == OperatorKind::router) {
      model::Weight& matrix = block.weights[static_cast<std::size_t>(op.weights.front())];
      if (matrix.tied_to.empty()) matrix.quantized = true;
    }
    if (op.kind != OperatorKind::experts) continue;
    if (op.mixture.stacked() && op.mixture.code != model::ExpertCode::parallel) continue;
    for (const std::int32_t weight : op.weights) {
      block.weights[static_cast<std::size_t>(weight)].quantized = true;
    }
  }
}

// peft/tuners/lora/layer.py. Linear: A [rank,in], B [out,rank]. Embedding: lora_embedding_A
// [rank,rows], lora_embedding_B [width,rank]. Conv: A a convolution to `rank` channels with the
// base's window, B one of a single pixel.
struct AdapterShapes {
  const char* first;
  const char* second;
  model::Shape down, up;
};

AdapterShapes shapes_of(const model::Graph& graph, const model::Block& block,
                        const model::Operator& op, std::int64_t rank, std::int64_t outputs,
                        std::int64_t inner) {
  const model::Shape& base = block.weights[static_cast<std::size_t>(op.weights.front())].shape;
  if (op.kind == OperatorKind::embedding) {
    return {".lora_embedding_A", ".lora_embedding_B", {rank, base.at(0)}, {base.at(1), rank}};
  }
  if (op.kind == OperatorKind::conv) {
    AdapterShapes shapes{".lora_A.weight", ".lora_B.weight", base, {base.at(0), rank}};
    shapes.down[0] = rank;
    shapes.up.resize(base.size(), 1);
    return shapes;
  }
  const model::TensorRef in = op.inputs.front();
  const auto index = static_cast<std::size_t>(in.index);
  const std::int64_t inputs = (in.shared ? graph.shared[index] : block.tensors[index]).shape.back();
  return {".lora_A.weight", ".lora_B.weight", {rank, inputs}, {outputs, inner}};
}

void LowRank::add_adapter(model::Block& block, model::Operator& op, std::int64_t rank,
                          std::int64_t outputs) const {
  const AdapterShapes shapes = shapes_of(graph_, block, op, rank, outputs, job_.train.lora.rank);
  const auto add = [&](const char* suffix, model::Shape shape) {
    model::Weight weight;
    weight.name = op.name + suffix;
    weight.shape = std::move(shape);
    weight.adapter = true;
    weight.unread = block.weights[static_cast<std::size_t>(op.weights.front())].unread;
    block.weights.push_back(std::move(weight));
    return static_cast<std::int32_t>(block.weights.size()) - 1;
  };
  if (op.weights.size() == 1) op.weights.push_back(-1);
  op.weights.push_back(add(shapes.first, shapes.down));
  op.weights.push_back(add(shapes.second, shapes.up));
  op.adapter_rank = rank;
  op.adapter_outputs = outputs;
  op.adapter_dropout = job_.train.lora.dropout;
}

std::int64_t outputs_of(const model::Block& block, const model::Operator& op) {
  if (op.kind == OperatorKind::router) return op.mixture.experts;  // it puts the chosen out
  return block.tensors[static_cast<std::size_t>(op.outputs.front().index)].shape.back();
}

bool LowRank::targeted(const model::Operator& op, const Place& place) const {
  return std::any_of(targets().begin(), targets().end(), [&](const std::string& target) {
    const bool linear = op.kind == OperatorKind::linear || (is_linear_router(op) && !dispatches());
    const bool all = target == kAllLinear && linear && !place.heads && !place.embeds;
    return all || names_module_of_layer(target, place.prefix, op.name);
  });
}

// Columns of each part of a fused projection.
std::vector<std::int64_t> part_columns(const model::Block& block, const model::Operator& op,
                                       const model::Operator& split) {
  const std::int64_t columns = outputs_of(block, op);
  if (split.fused_gate_up) return {columns / 2, columns / 2};
  std::vector<std::int64_t> parts;
  std::int64_t whole = 0;
  for (const model::TensorRef& part : split.outputs) {
    parts.push_back(block.tensors[static_cast<std::size_t>(part.index)].shape.back());
    whole += parts.back();
  }
  // Seen as heads, `whole` is what one head has of all parts.
  for (std::int64_t& part : parts) part = part * columns / whole;
  return parts;
}

// Targets by the parts' names where the model has one projection for all of them.
void LowRank::adapt_parts(model::Block& block, model::Operator& op) {
  const model::Operator* split = split_of(block, op);
  if (split == nullptr) return;
  const std::vector<std::int64_t> parts = part_columns(block, op, *split);
  std::int64_t enabled = 0;
  std::int64_t outputs = 0;
  for (const std::string& target : targets()) {
    for (const FusedPart& part : kFusedParts) {
      if (part.name != target || part.gate != split->fused_gate_up) continue;
      if (part.index >= parts.size()) continue;
      ++enabled;
      outputs += parts[part.index];
    }
  }
  if (enabled > 0) add_adapter(block, op, enabled * job_.train.lora.rank, outputs);
}

// Of no part that the job freezes as a whole (PEFT's exclude_modules).
bool is_open(const model::Block& block, const model::Operator& op) {
  return block.weights[static_cast<std::size_t>(op.weights.front())].trains;
}

// Of every expert whose projection is named, an A and a B of its own; they follow the matrices in
// their order, -1 for a projection without.
void LowRank::adapt_experts(model::Block& block, model::Operator& op, const Place& place) const {
  const std::int64_t rank = job_.train.lora.rank;
  std::vector<std::int32_t> added;
  bool any = false;
  for (const std::int32_t index : op.weights) {
    const model::Weight base = block.weights[static_cast<std::size_t>(index)];
    const std::string module(module_of(base.name));
    const bool named = std::any_of(targets().begin(), targets().end(), [&](const auto& target) {
      return target == kAllLinear || names_module_of_layer(target, place.prefix, module);
    });
    any |= named;
    for (const bool down : {true, false}) {
      added.push_back(-1);
      if (!named) continue;
      model::Weight weight;
      weight.name = module + (down ? ".lora_A.weight" : ".lora_B.weight");
      weight.shape =
          down ? model::Shape{rank, base.shape.at(1)} : model::Shape{base.shape.at(0), rank};
      weight.adapter = true;
      weight.expert = base.expert;
      weight.unread = base.unread;
      added.back() = static_cast<std::int32_t>(block.weights.size());
      block.weights.push_back(std::move(weight));
    }
  }
  if (!any) return;
  op.weights.insert(op.weights.end(), added.begin(), added.end());
  op.adapter_rank = rank;
  op.adapter_dropout = job_.train.lora.dropout;
}

void LowRank::adapt(model::Block& block, const Place& place) {
  for (model::Operator& op : block.operators) {
    if (holds_expert_modules(op) && is_open(block, op) && !dispatches()) {
      adapt_experts(block, op, place);
      any_ |= op.adapter_rank > 0;
      continue;
    }
    if (!is_adaptable(op) || !is_open(block, op)) continue;
    if (targeted(op, place)) {
      add_adapter(block, op, job_.train.lora.rank, outputs_of(block, op));
    } else if (habits_.adapts_fused_parts && op.kind == OperatorKind::linear) {
      adapt_parts(block, op);
    }
    any_ |= op.adapter_rank > 0;
  }
}

// modules_to_save: a copy trains, the original stays beside it.
void LowRank::train_modules(model::Block& block) {
  const std::vector<std::string>& trained = job_.train.lora.trainable;
  const std::size_t count = block.weights.size();
  for (std::size_t i = 0; i < count; ++i) {
    if (block.weights[i].adapter) continue;
    const std::string_view full = block.weights[i].name;
    const std::string_view module = full.substr(0, full.rfind('.'));
    const bool named = std::any_of(trained.begin(), trained.end(), [&](const std::string& target) {
      return names_module(target, module);
    });
    if (!named) continue;
    any_ = true;
    if (block.weights[i].tied_to.empty()) {
      model::Weight original = block.weights[i];
      original.name += " (original)";
      block.weights.push_back(std::move(original));
    }
    block.weights[i].trains = true;
    block.weights[i].quantized = false;
  }
}

// train.fused_kernels = ["lora"]
bool LowRank::fuses() const {
  const facts::TrainKeys& train = job_.train;
  const bool asked = std::find(train.fused_kernels.begin(), train.fused_kernels.end(),
                               facts::FusedKernel::lora) != train.fused_kernels.end();
  const bool quantized = train.base_quantization != facts::BaseQuantization::none;
  // Over a tensor-parallel group each linear is split by itself.
  return asked && job_.parallel.tensor == 1 && (quantized || !habits_.fuses_quantized_only);
}

void LowRank::change(model::Block& block, const Place& place) {
  quantize(block, place);
  adapt(block, place);
  freeze(block, place);
  train_modules(block);
  if (fuses()) fuse_adapted_linears(block);
}

Result<model::Graph> LowRank::apply() {
  STEELYARD_CHECK(check_targets(
      graph_, targets(),
      {.fused_parts = habits_.adapts_fused_parts, .dispatched_experts = dispatches()}));
  const std::size_t last = graph_.segments.size() - 1;
  const std::vector<std::string>& open = job_.train.trainable;
  const bool apart = std::any_of(targets().begin(), targets().end(), tells_layers_apart) ||
                     std::any_of(open.begin(), open.end(), [](const std::string& part) {
                       return tells_layers_apart(part + ".");  // "layers.3" names what lies below
                     });
  if (apart) {
    // `change` still reads the graph's shared tensors.
    graph_ = by_layer(graph_, [&](model::Block& block, std::size_t s, const std::string& prefix) {
      change(block, {s == 0, s == last, prefix});
    });
  } else {
    for (std::size_t s = 0; s <= last; ++s) {
      for (model::Block& block : graph_.segments[s].blocks) change(block, {s == 0, s == last, ""});
    }
  }
  if (!any_) {
    return fail({ErrorCode::bad_input,
                 "train.lora.targets",
                 targets().empty() ? "no module" : targets().front(),
                 known_targets(graph_),
                 "name linears that the model has",
                 "",
                 {}});
  }
  return std::move(graph_);
}

}  // namespace

bool names_module(std::string_view target, std::string_view module) {
  if (module == target) return true;
  // PEFT reads a text with wildcards as a pattern of the whole name; here of whole parts of it.
  if (target.find('*') != std::string_view::npos) return names_part(target, module);
  return module.size() > target.size() && module.ends_with(target) &&
         module[module.size() - target.size() - 1] == '.';
}

bool tells_layers_apart(std::string_view target) {
  for (std::size_t from = 0; from < target.size();) {
    const std::size_t dot = target.find('.', from);
    if (dot == std::string_view::npos) return false;
    const std::string_view part = target.substr(from, dot - from);
    const bool number = part.find_first_not_of("0123456789") == std::string_view::npos;
    if (!part.empty() && (part == "*" || number)) return true;
    from = dot + 1;
  }
  return false;
}

bool names_module_of_layer(std::string_view target, std::string_view prefix,
                           std::string_view module) {
  if (names_module(target, module)) return true;
  return !prefix.empty() && names_module(target, std::string(prefix) + std::string(module));
}

model::Graph without_adapters(model::Graph graph) {
  for (model::Segment& segment : graph.segments) {
    for (model::Block& block : segment.blocks) {
      for (model::Operator& op : block.operators) {
        if (op.adapter_rank == 0) continue;
        // Of experts, each matrix has two (LowRank::adapt_experts).
        op.weights.resize(op.kind == OperatorKind::experts ? op.weights.size() / 3
                                                           : op.weights.size() - 2);
        op.adapter_rank = op.adapter_outputs = 0;
        op.adapter_dropout = 0.0;
      }
    }
  }
  return graph;
}

Result<AdapterHabits> adapter_habits_of(const facts::FrameworkProfile& profile,
                                        std::string_view library) {
  AdapterHabits habits;
  if (!library.empty()) {
    STEELYARD_TRY(autocasts,
                  word(profile, std::string(library) + "_arithmetic", "base", "autocast"));
    habits.short_autocast = autocasts;
  }
  STEELYARD_TRY(promotes, word(profile, "lora_adapter_type", "base", "fp32"));
  STEELYARD_TRY(autocast, word(profile, "lora_arithmetic", "base", "autocast"));
  STEELYARD_TRY(nested, word(profile, "lora_nf4_statistics", "plain", "nested"));
  STEELYARD_TRY(norms, word(profile, "lora_unquantized_cast", "all", "norms"));
  STEELYARD_TRY(inputs, word(profile, "lora_recomputed_inputs", "as_is", "require_grad"));
  STEELYARD_TRY(parts, word(profile, "lora_fused_projection", "whole", "parts"));
  STEELYARD_TRY(head, word(profile, "lora_quantized_head", "kept", "quantized"));
  STEELYARD_TRY(input, word(profile, "lora_quantized_product", "saves_nothing", "holds_input"));
  STEELYARD_TRY(fused, word(profile, "lora_kernel", "any_base", "quantized_base"));
  STEELYARD_TRY(mixes, word(profile, "lora_units", "own", "mixed"));
  STEELYARD_TRY(subclass, word(profile, "lora_quantized_by", "bitsandbytes", "torchao"));
  STEELYARD_TRY(at_once, word(profile, "lora_quantizing", "in_chunks", "whole"));
  habits.quantizes_whole = at_once;
  STEELYARD_TRY(operators, word(profile, "lora_gptq_unpacked_by", "a_kernel", "operators"));
  STEELYARD_TRY(dispatched, word(profile, "experts", "loop", "dispatched"));
  habits.dispatched_experts = dispatched;
  STEELYARD_TRY(from_half, word(profile, "lora_quantized_from", "own_type", "fp16"));
  habits.quantizes_from_half = from_half;
  habits.tensor_subclass = subclass;
  habits.unpacks_by_operators = operators;
  habits.mixes_units = mixes;
  habits.promotes = promotes;
  habits.autocast = autocast;
  habits.nested_statistics = nested;
  habits.casts_norms_only = norms;
  const auto checkpoint = profile.operators.find("checkpoint");
  habits.reentrant = checkpoint != profile.operators.end() && checkpoint->second == "reentrant";
  habits.inputs_require_grad = inputs;
  habits.adapts_fused_parts = parts;
  habits.quantizes_head = head;
  habits.fuses_quantized_only = fused;
  habits.keeps_quantized_input = input;
  return habits;
}

bool inputs_require_grad(const facts::Job& job, const AdapterHabits& habits) {
  return habits.inputs_require_grad && job.train.recompute.mode != facts::RecomputeMode::none;
}

bool keeps_boundaries(const facts::Job& job, const AdapterHabits& habits,
                      const model::Block& block) {
  if (job.train.method == Method::full || !inputs_require_grad(job, habits)) return false;
  if (job.parallel.sharding != facts::Sharding::fsdp1 || !habits.reentrant) return false;
  // Adapters are units of their own (PEFT's fsdp_auto_wrap_policy).
  return std::none_of(block.weights.begin(), block.weights.end(),
                      [](const model::Weight& w) { return w.trains && !w.adapter; });
}

Result<model::Graph> with_method(const model::Graph& graph, const facts::Job& job,
                                 const AdapterHabits& habits) {
  if (job.train.method == Method::full) return graph;
  if (!job.train.lora.targets.empty() || !job.train.lora.trainable.empty()) {
    return LowRank(graph, job, habits).apply();
  }
  facts::Job filled = job;
  filled.train.lora.targets = default_targets(graph);
  return LowRank(graph, filled, habits).apply();
}

}  // namespace steelyard::step
