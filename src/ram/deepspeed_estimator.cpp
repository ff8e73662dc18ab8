#include "ram/deepspeed_estimator.h"

#include <algorithm>
#include <cmath>

namespace steelyard::ram {
namespace {

// Bytes per parameter as the source counts them.
constexpr double kShortWeights = 2.0;
constexpr double kFp32Weights = 4.0;
// 2 gradients, 4 fp32 gradients, 4 fp32 weights, 8 Adam moments.
constexpr double kUpdate = 18.0;
constexpr double kOffloadedUpdate = 16.0;  // as kUpdate, the short gradients stay on the GPU

// int() of the source: towards zero.
Bytes whole(double bytes) {
  return Bytes(checked_round(std::trunc(bytes)));
}

}  // namespace

DeepSpeedEstimate estimate_zero2(Parameters parameters, DeepSpeedCluster cluster,
                                 bool offload_optimizer) {
  const double p = parameters.real();
  const auto per_node = static_cast<double>(cluster.gpus_per_node);
  const double all = per_node * static_cast<double>(cluster.nodes);
  if (offload_optimizer) {
    return {
        .cpu = whole(p * std::max(kFp32Weights * all, kOffloadedUpdate) * kDeepSpeedBufferFactor),
        .gpu = whole(kShortWeights * p)};
  }
  return {.cpu = whole(p * kFp32Weights * per_node * kDeepSpeedBufferFactor),
          .gpu = whole(kShortWeights * p) + whole(kUpdate * p / all)};
}

DeepSpeedEstimate estimate_zero3(Parameters parameters, Parameters largest_layer,
                                 DeepSpeedCluster cluster, DeepSpeedOffload offload) {
  const double p = parameters.real();
  const auto per_node = static_cast<double>(cluster.gpus_per_node);
  const auto nodes = static_cast<double>(cluster.nodes);
  const double all = per_node * nodes;
  const Bytes layer = whole(kFp32Weights * largest_layer.real());
  if (!offload.optimizer) {
    const double held = offload.zero_init ? largest_layer.real() : p;
    return {.cpu = whole(held * kFp32Weights * per_node * kDeepSpeedBufferFactor),
            .gpu = layer + whole(kUpdate * p / all)};
  }
  const double states = (offload.parameters ? kUpdate : kOffloadedUpdate) / nodes;
  const double per_parameter =
      offload.zero_init ? states : std::max(kFp32Weights * per_node, states);
  return {.cpu = whole(p * per_parameter * kDeepSpeedBufferFactor),
          .gpu = offload.parameters ? layer : layer + whole(kShortWeights * p / all)};
}

}  // namespace steelyard::ram
