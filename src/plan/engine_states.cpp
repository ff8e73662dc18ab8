#include "plan/engine_states.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>
#include <utility>

namespace steelyard::plan {
namespace {

using facts::DType;
using facts::Job;
using facts::Origin;
using facts::Precision;
using facts::ShortPrecision;

std::string_view word_of(const facts::FrameworkProfile& framework, std::string_view composite) {
  const auto found = framework.operators.find(composite);
  return found == framework.operators.end() ? std::string_view() : found->second;
}

std::int64_t count_of(const facts::FrameworkProfile& framework, std::string_view composite) {
  const std::string_view word = word_of(framework, composite);
  std::int64_t count = 0;
  std::from_chars(word.data(), word.data() + word.size(), count);
  return count;
}

template <class T>
void fill(Job& job, std::optional<T>& field, const char* key, T value) {
  if (field) return;
  field = std::move(value);
  job.origins[key] = {Origin::fallback, {}};
}

// The type of parameters: the engine holds them short whatever is called mixed.
ShortPrecision own_type(Precision precision) {
  switch (precision) {
    case Precision::fp32:
    case Precision::tf32: return ShortPrecision::fp32;
    case Precision::fp16:
    case Precision::fp16_mixed: return ShortPrecision::fp16;
    default: return ShortPrecision::bf16;
  }
}

DType type_of(ShortPrecision precision) {
  switch (precision) {
    case ShortPrecision::fp32: return DType::fp32;
    case ShortPrecision::bf16: return DType::bf16;
    case ShortPrecision::fp16: return DType::fp16;
  }
  return DType::fp32;
}

// The names are joined by commas.
bool lists(std::string_view words, std::string_view name) {
  while (!words.empty()) {
    const std::size_t comma = std::min(words.find(", "), words.size());
    if (words.substr(0, comma) == name) return true;
    words.remove_prefix(std::min(comma + 2, words.size()));
  }
  return false;
}

Result<void> check_sharding(const Job& job, const facts::FrameworkProfile& framework) {
  const std::string_view offered = word_of(framework, "shardings");
  const std::string_view name = facts::name_of(job.parallel.sharding);
  if (lists(offered, name)) return {};
  Error error;
  error.code = ErrorCode::impossible_combination;
  error.subject = "parallel.sharding";
  error.found = name;
  error.accepted = std::string(offered) + ": what the engine of " + framework.name + " has";
  error.hint =
      "another engine's sharding is planned under its own framework, or beside "
      "[import] arguments";
  return fail(std::move(error));
}

// "fp32" for bf16: gradients of that type are added up wider unless the job says otherwise.
ShortPrecision gradients_of(ShortPrecision own, const facts::FrameworkProfile& framework) {
  const std::string composite = "main_gradients_of_" + std::string(facts::name_of(own));
  return facts::from_name<ShortPrecision>(word_of(framework, composite)).value_or(own);
}

}  // namespace

bool holds_states(const Job& job, const facts::FrameworkProfile& framework) {
  return !job.import.megatron && word_of(framework, "states") == "engine_buffers";
}

Result<void> resolve_engine(Job& job, const facts::FrameworkProfile& framework) {
  if (!holds_states(job, framework)) return {};
  STEELYARD_CHECK(check_sharding(job, framework));
  const ShortPrecision own = own_type(job.train.precision);
  facts::OptimizerKeys& optimizer = job.train.optimizer;
  fill(job, job.parallel.reduce_precision, "parallel.reduce_precision",
       gradients_of(own, framework));
  fill(job, optimizer.master_weights, "train.optimizer.master_weights",
       own != ShortPrecision::fp32);
  fill(job, optimizer.state_precision, "train.optimizer.state_precision", ShortPrecision::fp32);
  if (word_of(framework, "saving") == "parts" && !job.origins.contains("checkpoint.method")) {
    job.checkpoint.method = facts::CheckpointMethod::sharded_sync;
  }
  facts::MegatronKeys keys;
  // What the step's time asks an import for as well (pace/prices.cpp).
  if (const auto products = word_of(framework, "grouped_products"); !products.empty()) {
    keys.operators["grouped_products"] = products;
  }
  keys.distributed_optimizer = job.parallel.sharding == facts::Sharding::zero1;
  keys.main_gradients = type_of(*job.parallel.reduce_precision);
  keys.first_moment = keys.second_moment = type_of(*optimizer.state_precision);
  keys.fused_weight_gradients = word_of(framework, "weight_gradients") == "into_buffer";
  job.megatron = std::move(keys);
  return {};
}

void resolve_workspaces(Job& job, const model::Graph& graph,
                        const facts::FrameworkProfile& framework) {
  if (!job.megatron || !holds_states(job, framework)) return;
  const auto has_experts = [](const model::Operator& op) { return op.mixture.experts > 0; };
  bool experts = false;
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      experts = experts || std::ranges::any_of(block.operators, has_experts);
    }
  }
  std::int64_t& workspaces = job.megatron->engine_workspaces;
  if (experts) workspaces += count_of(framework, "grouped_workspaces");
  if (job.parallel.async_tensor) workspaces += count_of(framework, "overlap_workspaces");
}

}  // namespace steelyard::plan
