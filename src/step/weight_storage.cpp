#include "step/weight_storage.h"

namespace steelyard::step {

namespace {

using facts::BaseQuantization;
using facts::DType;
using model::WeightRole;

constexpr std::int64_t kFourBitBlock = 64;  // elements per absolute maximum
constexpr std::int64_t kNestedBlock = 256;  // of those per fp32 scale
constexpr std::int64_t kFourBitCode = 16;   // values that four bits can name
constexpr std::int64_t kGptqGroup = 128;    // inputs per scale and zero
constexpr std::int64_t kNibblesPerByte = 2;
// The smallest tensor whose states are kept in blocks (bitsandbytes, optim/optimizer.py; torchao,
// optim/adam.py).
constexpr std::int64_t kBlocksLeast = 4096;
constexpr std::int64_t kNibblesPerWord = 8;

// torchao's NF4Tensor is a tensor subclass of which FSDP2 cuts and gathers the statistics as well
// (nf4_tensor.py, _INNER_TENSOR_NAMES_FOR_SHARDING and fsdp_pre_all_gather).
std::vector<Piece> four_bit(std::int64_t numel, bool nested, bool subclass) {
  const std::int64_t blocks = ceil_divide(numel, kFourBitBlock);
  std::vector<Piece> pieces = {{ceil_divide(numel, kNibblesPerByte), DType::int8, true}};
  if (nested) {
    pieces.push_back({blocks, DType::int8, subclass});
    pieces.push_back({ceil_divide(blocks, kNestedBlock), DType::fp32, subclass});
    pieces.push_back({1, DType::fp32, false});  // offset: the statistics' mean
  } else {
    pieces.push_back({blocks, DType::fp32, subclass});
  }
  pieces.push_back({kFourBitCode, DType::fp32, false});
  return pieces;
}

std::vector<Piece> gptq(std::int64_t inputs, std::int64_t outputs, DType scale) {
  const std::int64_t groups = ceil_divide(inputs, kGptqGroup);
  return {{ceil_divide(inputs, kNibblesPerWord) * outputs, DType::int32, true},
          {groups * ceil_divide(outputs, kNibblesPerWord), DType::int32, true},
          {groups * outputs, scale, false},
          {inputs, DType::int32, false}};
}

bool is_short(DType type) {
  return type == DType::bf16 || type == DType::fp16;
}

}  // namespace

facts::DType held_type(const Layout& layout, const model::Weight& weight) {
  if (weight.adapter) return layout.adapter;
  const Fp8& fp8 = layout.arithmetic.fp8;
  const bool held_short = fp8.short_weights && fp8.library == Fp8Library::transformer_engine;
  if (weight.fp8 && held_short) return facts::DType::fp8;
  if (!weight.trains && weight.role == WeightRole::norm) return layout.frozen_norm;
  return layout.parameter;
}

facts::DType used_type(const Layout& layout, const model::Weight& weight) {
  if (weight.fp8 && layout.arithmetic.fp8.short_weights) return facts::DType::fp8;
  const DType held = held_type(layout, weight);
  // Gathering casts what is trained in mixed precision (fp32 shards, short copies).
  return layout.used != layout.parameter && held == layout.parameter ? layout.used : held;
}

facts::DType gradient_type(const Layout& layout, const model::Weight& weight) {
  return weight.adapter && !layout.master ? held_type(layout, weight) : layout.gradient;
}

facts::DType stepped_type(const Layout& layout, const model::Weight& weight) {
  return weight.adapter && !layout.master ? held_type(layout, weight) : layout.stepped;
}

facts::DType state_type(const Layout& layout, const model::Weight& weight) {
  // Unless the job says otherwise, states have the type of what is stepped.
  const bool follows = weight.adapter && layout.optimizer.state == layout.stepped;
  return follows ? stepped_type(layout, weight) : layout.optimizer.state;
}

std::vector<Piece> pieces_of(const Layout& layout, const model::Weight& weight) {
  const std::int64_t numel = model::elements(weight.shape);
  if (!weight.quantized) return {{numel, held_type(layout, weight), true}};
  const DType rest = layout.arithmetic.compute;
  switch (layout.quantization) {
    case BaseQuantization::nf4:
    case BaseQuantization::fp4:
      return four_bit(numel, layout.nested_statistics, layout.quantized_subclass);
    case BaseQuantization::nf4_dq: return four_bit(numel, true, layout.quantized_subclass);
    case BaseQuantization::int8:
      return {{numel, DType::int8, true}, {weight.shape.front(), DType::fp32, false}};
    case BaseQuantization::gptq_int4:
      return gptq(weight.shape.back(), numel / weight.shape.back(),
                  is_short(rest) ? rest : DType::fp16);
    case BaseQuantization::none: break;
  }
  return {{numel, held_type(layout, weight), true}};
}

Bytes held_bytes(const Layout& layout, const model::Weight& weight) {
  Bytes sum;
  for (const Piece& piece : pieces_of(layout, weight)) sum += bytes_of(piece.numel, piece.dtype);
  return sum;
}

Bytes gathered_bytes(const Layout& layout, const model::Weight& weight) {
  if (!weight.quantized) {
    return bytes_of(model::elements(weight.shape), used_type(layout, weight));
  }
  Bytes sum;
  for (const Piece& piece : pieces_of(layout, weight)) {
    if (piece.sharded) sum += bytes_of(piece.numel, piece.dtype);
  }
  return sum;
}

bool is_reduced(const model::Weight& weight) {
  return steps(weight) && !weight.placed && weight.host_elements == 0;
}

std::int64_t trained_elements(const model::Block& block) {
  std::int64_t sum = 0;
  for (const model::Weight& weight : block.weights) {
    if (!is_reduced(weight)) continue;
    sum = checked_add(sum, model::elements(weight.shape));
  }
  return sum;
}

std::int64_t trained_elements(const model::Graph& graph) {
  std::int64_t sum = 0;
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      sum = checked_add(sum, checked_multiply(segment.repeat, trained_elements(block)));
    }
  }
  return sum;
}

Bytes statistics_bytes(const OptimizerLayout& optimizer, std::int64_t numel) {
  if (!optimizer.in_blocks || numel < kBlocksLeast) return {};
  return bytes_of(ceil_divide(numel, optimizer.block), DType::fp32);
}

Bytes state_bytes(const OptimizerLayout& optimizer, std::int64_t numel, DType state) {
  if (!optimizer.in_blocks || numel < kBlocksLeast) return bytes_of(numel, state);
  return Bytes(ceil_divide(checked_multiply(numel, optimizer.code_bits), 8)) +
         statistics_bytes(optimizer, numel);
}

}  // namespace steelyard::step
