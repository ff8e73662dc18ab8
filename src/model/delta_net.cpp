// Mixers of the gated delta rule (transformers 4.57: modeling_qwen3_next.py; 5:
// modeling_qwen3_5.py, which projects queries, keys and values, gates and both factors apart).
#include "model/decoder_parts.h"

namespace steelyard::model {

TensorRef add_delta_net(BlockBuilder& block, TensorRef x, const DeltaPart& part) {
  const std::string module = part.module + ".";
  const std::int64_t keys = part.scan.groups * part.scan.state;
  const std::int64_t values = part.scan.channels();
  std::vector<TensorRef> projected;
  if (part.joined) {
    projected = {block.linear(module + "in_proj_qkvz", x, 2 * keys + 2 * values),
                 block.linear(module + "in_proj_ba", x, 2 * part.scan.heads)};
  } else {
    projected = {block.linear(module + "in_proj_qkv", x, 2 * keys + values),
                 block.linear(module + "in_proj_z", x, values),
                 block.linear(module + "in_proj_b", x, part.scan.heads),
                 block.linear(module + "in_proj_a", x, part.scan.heads)};
  }
  const TensorRef mixed = block.delta_rule(part.module, projected, part.scan, part.taps);
  return block.linear(module + "out_proj", mixed, block.width(x));
}

}  // namespace steelyard::model
