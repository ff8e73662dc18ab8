#include "step/offload_rules.h"

#include <string>

namespace steelyard::step {
namespace {

using facts::OffloadTo;
using facts::Sharding;

bool moves(OffloadTo to) {
  return to != OffloadTo::none;
}

bool is_fsdp(Sharding sharding) {
  return sharding == Sharding::fsdp || sharding == Sharding::fsdp1 || sharding == Sharding::hsdp ||
         sharding == Sharding::shard_grad_op;
}

bool is_zero(Sharding sharding) {
  return sharding == Sharding::zero1 || sharding == Sharding::zero2 || sharding == Sharding::zero3;
}

std::string name_of(OffloadTo to) {
  return std::string(facts::name_of(to));
}

std::unexpected<Error> misfit(const char* key, OffloadTo found, std::string accepted,
                              std::string hint) {
  return fail({.code = ErrorCode::impossible_combination,
               .subject = key,
               .found = name_of(found),
               .accepted = std::move(accepted),
               .hint = std::move(hint)});
}

std::unexpected<Error> not_yet(const char* key, OffloadTo found, std::string accepted) {
  return fail({.code = ErrorCode::not_supported,
               .subject = key,
               .found = name_of(found),
               .accepted = std::move(accepted),
               .hint = "this key is understood, but its effect is not modelled yet, so it is not "
                       "silently ignored"});
}

Result<void> check_fsdp(const facts::OffloadKeys& offload) {
  for (const auto& [key, to] : {std::pair{"offload.parameters", offload.parameters},
                                std::pair{"offload.optimizer", offload.optimizer}}) {
    if (to == OffloadTo::nvme) {
      return misfit(key, to, "none or cpu: only DeepSpeed's zero3 reads from NVMe", "");
    }
  }
  const bool states = moves(offload.optimizer) || moves(offload.gradients);
  if (states && !moves(offload.parameters)) {
    return misfit("offload.parameters", offload.parameters,
                  "cpu: FSDP keeps parameters, gradients and states on one device",
                  "set offload.parameters = \"cpu\", or leave all of them on the GPU");
  }
  return {};
}

Result<void> check_zero(const facts::Job& job) {
  const facts::OffloadKeys& offload = job.offload;
  if (moves(offload.parameters) && job.parallel.sharding != Sharding::zero3) {
    return misfit("offload.parameters", offload.parameters,
                  "none, or parallel.sharding = \"zero3\": DeepSpeed offloads what it partitions",
                  "");
  }
  if (offload.optimizer == OffloadTo::nvme && job.parallel.sharding != Sharding::zero3) {
    return misfit("offload.optimizer", offload.optimizer, "none or cpu below zero3", "");
  }
  if (moves(offload.gradients) && !moves(offload.optimizer)) {
    return misfit("offload.gradients", offload.gradients,
                  "none: DeepSpeed moves gradients with the optimizer",
                  "set offload.optimizer = \"cpu\"");
  }
  return {};
}

// A loop over a whole model: torchao's CPUOffloadOptimizer and its kind.
Result<void> check_whole(const facts::Job& job) {
  const facts::OffloadKeys& offload = job.offload;
  if (moves(offload.parameters)) {
    return misfit("offload.parameters", offload.parameters,
                  "none, or parallel.sharding = \"zero3\" or \"fsdp\"",
                  "what is not sharded stays on the GPU");
  }
  if (offload.optimizer == OffloadTo::nvme) {
    return misfit("offload.optimizer", offload.optimizer, "none or cpu without zero3", "");
  }
  if (moves(offload.gradients) && !moves(offload.optimizer)) {
    return misfit("offload.gradients", offload.gradients,
                  "none, or offload.optimizer = \"cpu\": the host steps what lies there", "");
  }
  if (moves(offload.gradients) && job.train.gradient_accumulation.value_or(1) > 1) {
    return misfit("offload.gradients", offload.gradients,
                  "none with train.gradient_accumulation above 1",
                  "CPUOffloadOptimizer steps each gradient as it arrives (torchao)");
  }
  return {};
}

}  // namespace

HostStates host_states(const facts::Job& job) {
  const facts::OffloadKeys& offload = job.offload;
  HostStates host;
  host.parameters = moves(offload.parameters);
  const bool all = is_fsdp(job.parallel.sharding) && host.parameters;
  host.optimizer = all || moves(offload.optimizer);
  const bool partitions =
      job.parallel.sharding == Sharding::zero2 || job.parallel.sharding == Sharding::zero3;
  host.gradients = all || moves(offload.gradients) || (partitions && moves(offload.optimizer));
  return host;
}

Result<void> check_offload(const facts::Job& job) {
  const facts::OffloadKeys& offload = job.offload;
  if (offload.activations == OffloadTo::nvme) {
    return not_yet("offload.activations", offload.activations, "none or cpu");
  }
  const HostStates host = host_states(job);
  if (!host.parameters && !host.optimizer && !host.gradients) return {};
  if (job.train.optimizer.in_backward) {
    return misfit("offload.optimizer", offload.optimizer,
                  "none: train.optimizer.in_backward steps on the GPU", "");
  }
  if (is_fsdp(job.parallel.sharding)) return check_fsdp(offload);
  if (is_zero(job.parallel.sharding)) return check_zero(job);
  if (job.megatron) {
    for (const auto& [key, to] : {std::pair{"offload.parameters", offload.parameters},
                                  std::pair{"offload.gradients", offload.gradients},
                                  std::pair{"offload.optimizer", offload.optimizer}}) {
      if (moves(to)) return not_yet(key, to, "none");
    }
  }
  return check_whole(job);
}

}  // namespace steelyard::step
