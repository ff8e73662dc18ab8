#include "step/fused_projection.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace steelyard::step {

namespace {

using model::Block;
using model::Operator;
using model::OperatorKind;

constexpr std::size_t kParts = 3;
constexpr std::array<std::string_view, kParts> kNames = {"q_proj", "k_proj", "v_proj"};
using Parts = std::array<std::size_t, kParts>;  // indices into Block::operators

std::optional<Parts> projections_of(const Block& block) {
  Parts parts{};
  for (std::size_t part = 0; part < kParts; ++part) {
    const auto found =
        std::find_if(block.operators.begin(), block.operators.end(), [&](const Operator& op) {
          return op.kind == OperatorKind::linear && op.name.ends_with(kNames.at(part));
        });
    if (found == block.operators.end()) return std::nullopt;
    parts.at(part) = static_cast<std::size_t>(found - block.operators.begin());
  }
  const auto input = [&](std::size_t part) { return block.operators[parts.at(part)].inputs[0]; };
  for (std::size_t part = 1; part < kParts; ++part) {
    if (input(part).shared != input(0).shared || input(part).index != input(0).index) return {};
  }
  return parts;
}

// The first part's weight takes the rows of the others, which are dropped.
std::vector<std::int32_t> join_weights(Block& block, const Parts& parts) {
  std::vector<std::int32_t> joined = block.operators[parts[0]].weights;
  std::vector<bool> dropped(block.weights.size());
  for (std::size_t i = 0; i < joined.size(); ++i) {
    model::Weight& whole = block.weights[static_cast<std::size_t>(joined[i])];
    whole.name.replace(whole.name.rfind(kNames[0]), kNames[0].size(), "qkv_proj");
    for (std::size_t part = 1; part < kParts; ++part) {
      const auto index = static_cast<std::size_t>(block.operators[parts.at(part)].weights[i]);
      whole.shape.front() += block.weights[index].shape.front();
      dropped[index] = true;
    }
  }
  std::vector<model::Weight> kept;
  std::vector<std::int32_t> places(block.weights.size(), -1);
  for (std::size_t i = 0; i < block.weights.size(); ++i) {
    if (dropped[i]) continue;
    places[i] = static_cast<std::int32_t>(kept.size());
    kept.push_back(std::move(block.weights[i]));
  }
  block.weights = std::move(kept);
  const auto moved = [&](std::int32_t index) {
    return index < 0 ? index : places[static_cast<std::size_t>(index)];
  };
  for (Operator& op : block.operators) {
    for (std::int32_t& index : op.weights) index = moved(index);
  }
  for (std::int32_t& index : joined) index = moved(index);
  return joined;
}

void fuse(Block& block) {
  const std::optional<Parts> found = projections_of(block);
  if (!found) return;
  Parts parts = *found;
  Operator linear = block.operators[parts[0]];
  Operator split;
  split.kind = OperatorKind::split;
  split.name = linear.name + ".split";
  model::TensorInfo whole = block.tensors[static_cast<std::size_t>(linear.outputs[0].index)];
  whole.name = linear.name = linear.name.substr(0, linear.name.rfind(kNames[0])) + "qkv_proj";
  whole.shape.back() = 0;
  for (const std::size_t part : parts) {
    const model::TensorRef out = block.operators[part].outputs[0];
    whole.shape.back() += block.tensors[static_cast<std::size_t>(out.index)].shape.back();
    split.outputs.push_back(out);
  }
  linear.weights = join_weights(block, parts);
  linear.outputs[0].index = static_cast<std::int32_t>(block.tensors.size());
  block.tensors.push_back(std::move(whole));
  split.inputs = {linear.outputs[0]};
  std::sort(parts.begin(), parts.end());
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    block.operators.erase(block.operators.begin() + static_cast<std::ptrdiff_t>(*part));
  }
  const auto place = block.operators.begin() + static_cast<std::ptrdiff_t>(parts[0]);
  block.operators.insert(block.operators.insert(place, std::move(split)), std::move(linear));
}

}  // namespace

Result<model::Graph> with_own_projections(const model::Graph& graph,
                                          const facts::FrameworkProfile& profile) {
  const auto word = profile.operators.find("attention_projection");
  if (word == profile.operators.end() || word->second == "as_configured") return graph;
  if (word->second != "fused") {
    return fail({ErrorCode::bad_input,
                 "framework profile " + profile.name + ", operators.attention_projection",
                 word->second,
                 "as_configured, fused",
                 "correct the profile in catalog/frameworks",
                 "",
                 {}});
  }
  model::Graph own = graph;
  for (model::Segment& segment : own.segments) {
    for (Block& block : segment.blocks) fuse(block);
  }
  return own;
}

}  // namespace steelyard::step
