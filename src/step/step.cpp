#include "step/step.h"

#include <string>

#include "step/assembler.h"

namespace steelyard::step {

namespace {

Error not_yet(std::string key, std::string found, std::string accepted) {
  return {ErrorCode::not_supported,
          std::move(key),
          std::move(found),
          std::move(accepted),
          "this key is understood, but its effect is not built in this version",
          "",
          {}};
}

// Keys whose effect a later version brings: an error, never ignored.
Result<void> check_train(const facts::TrainKeys& train) {
  using facts::name_of;
  if (train.method != facts::Method::full) {
    return fail(not_yet("train.method", std::string(name_of(train.method)), "full"));
  }
  const facts::RecomputeKeys& recompute = train.recompute;
  const bool partial = recompute.every || recompute.layers || recompute.method;
  if (partial || (recompute.mode != facts::RecomputeMode::none &&
                  recompute.mode != facts::RecomputeMode::full)) {
    return fail(not_yet("train.recompute",
                        partial ? "a table" : std::string(name_of(recompute.mode)),
                        "none or full"));
  }
  if (train.loss != facts::Loss::full) {
    return fail(not_yet("train.loss", std::string(name_of(train.loss)), "full"));
  }
  if (train.compile) return fail(not_yet("train.compile", "true", "false"));
  if (!train.fused_kernels.empty()) {
    return fail(not_yet("train.fused_kernels",
                        std::string(name_of(train.fused_kernels.front())), "[]"));
  }
  if (train.optimizer.in_backward) {
    return fail(not_yet("train.optimizer.in_backward", "true", "false"));
  }
  if (train.tokens_per_batch) {
    return fail(not_yet("train.tokens_per_batch", "a value", "train.micro_batch"));
  }
  return {};
}

Result<void> check_parallel(const facts::ParallelKeys& parallel) {
  const auto one = [](const char* key, std::int64_t value) -> Result<void> {
    if (value == 1) return {};
    return fail(not_yet(key, std::to_string(value), "1"));
  };
  STEELYARD_CHECK(one("parallel.tensor", parallel.tensor));
  STEELYARD_CHECK(one("parallel.pipeline", parallel.pipeline));
  STEELYARD_CHECK(one("parallel.context", parallel.context));
  STEELYARD_CHECK(one("parallel.expert", parallel.expert));
  STEELYARD_CHECK(one("parallel.expert_tensor", parallel.expert_tensor));
  STEELYARD_CHECK(one("parallel.virtual_stages", parallel.virtual_stages));
  if (!parallel.stage_layers.empty()) {
    return fail(not_yet("parallel.stage_layers", "a list", "no value"));
  }
  return {};
}

Result<void> check_offload(const facts::OffloadKeys& offload) {
  const auto stays = [](const char* key, facts::OffloadTo to) -> Result<void> {
    if (to == facts::OffloadTo::none) return {};
    return fail(not_yet(key, std::string(facts::name_of(to)), "none"));
  };
  STEELYARD_CHECK(stays("offload.parameters", offload.parameters));
  STEELYARD_CHECK(stays("offload.optimizer", offload.optimizer));
  STEELYARD_CHECK(stays("offload.activations", offload.activations));
  STEELYARD_CHECK(stays("offload.gradients", offload.gradients));
  return {};
}

}  // namespace

Result<Program> program_of(const model::Graph& graph, const facts::Job& job,
                           const facts::FrameworkProfile& profile) {
  if (!profile.supported) {
    return fail(not_yet("framework", profile.name,
                        "pytorch, transformers, deepspeed or another supported framework"));
  }
  STEELYARD_CHECK(check_train(job.train));
  STEELYARD_CHECK(check_parallel(job.parallel));
  STEELYARD_CHECK(check_offload(job.offload));
  if (!job.model.companions.empty()) {
    return fail(not_yet("model.companions", "a list", "no value"));
  }
  STEELYARD_TRY(layout, layout_of(job));
  STEELYARD_TRY(variants, variants_of(profile, job.train.attention));
  Assembler assembler(graph, job, profile, variants, layout);
  return assembler.assemble();
}

}  // namespace steelyard::step
