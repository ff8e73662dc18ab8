#include "validate/flops_convention.h"

#include <optional>

namespace steelyard::validate {
namespace {

using facts::FlopsConvention;
using facts::Plan;

std::optional<double> tokens_per_sample(const Plan& plan) {
  if (plan.pace.tokens && plan.pace.samples && plan.pace.samples->value() > 0.0) {
    return plan.pace.tokens->value() / plan.pace.samples->value();
  }
  if (plan.job.train.sequence_length) {
    return static_cast<double>(*plan.job.train.sequence_length);
  }
  return std::nullopt;
}

// `times` operations per parameter and token: 6 for forward and backward, 8 with one recomputation.
Comparable<Flops> per_parameter(double times, const Plan& plan) {
  const std::optional<double> tokens = tokens_per_sample(plan);
  if (!tokens) return std::unexpected("the convention counts tokens, and the job has none");
  return Flops(times * plan.model.active_parameters.real() * *tokens);
}

// Forward and backward of attention, `share` of all scores (causal: one half).
Comparable<Flops> attention(double share, const Plan& plan) {
  const auto& forward = plan.model.attention_forward_flops_per_sample;
  if (!forward)
    return std::unexpected("the plan does not state attention's part of the arithmetic");
  return Flops(3.0 * 2.0 * share * forward->value());
}

Comparable<Flops> sum(const Comparable<Flops>& a, const Comparable<Flops>& b) {
  if (!a) return a;
  if (!b) return b;
  return *a + *b;
}

Comparable<Flops> per_sample(FlopsConvention convention, const Plan& plan) {
  const Flops own = plan.model.forward_flops_per_sample + plan.model.backward_flops_per_sample;
  switch (convention) {
    case FlopsConvention::six_n: return per_parameter(6.0, plan);
    case FlopsConvention::eight_n: return per_parameter(8.0, plan);
    case FlopsConvention::six_n_attention:
      return sum(per_parameter(6.0, plan), attention(1.0, plan));
    case FlopsConvention::six_n_causal_attention:
      return sum(per_parameter(6.0, plan), attention(0.5, plan));
    // All matrix products as they are, the logits' too, and all scores: the plan's own count and
    // the half of the scores which that leaves out.
    case FlopsConvention::megatron: return sum(own, attention(0.5, plan));
    case FlopsConvention::unstated:
      return std::unexpected("the source does not say what its arithmetic rate counts");
  }
  return std::unexpected("unknown convention");
}

}  // namespace

Comparable<Ratio> counted_per_own(FlopsConvention convention, const Plan& plan) {
  const Comparable<Flops> counted = per_sample(convention, plan);
  if (!counted) return std::unexpected(counted.error());
  const Flops own = plan.model.forward_flops_per_sample + plan.model.backward_flops_per_sample;
  if (own.value() <= 0.0) return std::unexpected("the plan counts no arithmetic for this model");
  return *counted / own;
}

Comparable<FlopsPerSecond> rate_per_gpu(FlopsConvention convention, const Plan& plan) {
  const Comparable<Ratio> factor = counted_per_own(convention, plan);
  if (!factor) return std::unexpected(factor.error());
  if (!plan.pace.model_flops_per_gpu) {
    return std::unexpected("the plan does not state an arithmetic rate");
  }
  return scaled(*plan.pace.model_flops_per_gpu, *factor);
}

}  // namespace steelyard::validate
