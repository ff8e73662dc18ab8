#include "step/persistent_buffers.h"

#include <numeric>

#include "step/weight_storage.h"

namespace steelyard::step {

namespace {

constexpr std::int64_t kParameterStart = 64;  // pad_param_start
constexpr std::int64_t kBucketEnd = 128;      // bucket_end_divisor
constexpr std::int64_t kHighBandwidth = std::int64_t{1} << 16;

std::int64_t bucket_divisor(const BufferRules& rules) {
  const std::int64_t divisor = std::lcm(rules.ranks, kBucketEnd);
  return rules.pads_for_high_bandwidth ? std::lcm(divisor, kHighBandwidth) : divisor;
}

}  // namespace

std::int64_t buffer_elements(const std::vector<std::int64_t>& sizes, const BufferRules& rules) {
  if (!rules.padded) return std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
  const std::int64_t divisor = bucket_divisor(rules);
  std::int64_t end = 0;
  std::int64_t bucket_begin = 0;
  for (const std::int64_t size : sizes) {
    end = round_up(end, kParameterStart) + size;
    if (!rules.bucket_numel || end - bucket_begin < *rules.bucket_numel) continue;
    end = bucket_begin = round_up(end, divisor);
  }
  return round_up(end, divisor);
}

std::vector<std::int64_t> sizes_in_reverse(const model::Graph& graph, std::size_t begin,
                                           std::size_t end, bool experts,
                                           std::optional<bool> short_weights) {
  std::vector<std::int64_t> sizes;
  for (std::size_t s = end; s-- > begin;) {
    const model::Segment& segment = graph.segments[s];
    std::vector<std::int64_t> round;
    for (auto block = segment.blocks.rbegin(); block != segment.blocks.rend(); ++block) {
      for (auto weight = block->weights.rbegin(); weight != block->weights.rend(); ++weight) {
        const bool other = short_weights && weight->fp8 != *short_weights;
        if (!steps(*weight) || weight->expert != experts || other) continue;
        round.push_back(model::elements(weight->shape));
      }
    }
    for (std::int64_t i = 0; i < segment.repeat; ++i) {
      sizes.insert(sizes.end(), round.begin(), round.end());
    }
  }
  return sizes;
}

}  // namespace steelyard::step
