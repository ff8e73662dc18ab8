// How a model comes to be on a GPU on which it is built: a layer that the others are copies of, and
// matrices that the GPU quantizes. What this leaves in the allocator is there when training begins.
//
// Sources: pytorch/torchtune at v0.1.0: modules/transformer.py (_get_clones),
// utils/_register_nf4_dispatch_ops.py (clone, copy_), modules/peft/lora.py; pytorch/ao at v0.1:
// dtypes/nf4tensor.py. docs/model/vram.md, "Building".
#include <algorithm>
#include <utility>

#include "step/assembler.h"
#include "step/weight_storage.h"

namespace steelyard::step {

namespace {

using facts::VramCategory;

constexpr std::int64_t kFourBitBlock = 64;   // elements per absolute maximum
constexpr std::int64_t kFourBitValues = 16;  // each element is compared with all of them

}  // namespace

std::int32_t Assembler::piece_slot(const Piece& piece, const model::Weight& weight) {
  const std::int64_t shards =
      piece.sharded ? shards_of(layout_, weight, layout_.parameter_shards) : 1;
  const Bytes bytes = bytes_of(ceil_divide(piece.numel, shards), piece.dtype);
  return typed(slot(bytes, VramCategory::parameters, weight.name), piece.dtype, weight.shape);
}

bool Assembler::quantizes_whole(const model::Weight& weight) const {
  const bool here = !layout_.gathers && !layout_.on_host.parameters && layout_.quantized_subclass;
  return here && habits_.quantizes_whole && weight.quantized;
}

std::int32_t Assembler::passing(std::vector<Event>& events, Bytes bytes, std::string_view text) {
  const std::int32_t made = slot(bytes, VramCategory::temporaries, text);
  allocate(events, made);
  return made;
}

// NF4Tensor.from_tensor before torchao 0.2: quantize_tensor_nearest holds the differences of all
// elements from all 16 values, and their absolutes, at once.
void Assembler::quantize(std::vector<Event>& events, const model::Weight& weight,
                         const std::vector<std::int32_t>& pieces) {
  const std::int64_t numel = model::elements(weight.shape);
  const std::int64_t blocks = ceil_divide(numel, kFourBitBlock);
  const DType wide = layout_.arithmetic.compute;
  const auto pass = [&](std::int64_t count, DType dtype, std::string_view text) {
    return passing(events, bytes_of(count, dtype), text);
  };
  const auto largest_of_blocks = [&] {
    const std::int32_t absolute = pass(numel, wide, "abs");
    const std::int32_t largest = pass(blocks, wide, "max");
    const std::int32_t where = pass(blocks, DType::int64, "max");
    free(events, absolute);
    free(events, where);
    return largest;
  };
  for (std::size_t i = pieces.size(); i-- > 1;) allocate(events, pieces[i]);
  free(events, largest_of_blocks());  // double_quantize_scalers
  const std::int32_t largest = largest_of_blocks();
  const std::int32_t scaled = pass(numel, wide, "div");
  const std::int64_t compared = checked_multiply(numel, kFourBitValues);
  const std::int32_t difference = pass(compared, wide, "sub");
  const std::int32_t distance = pass(compared, wide, "abs");
  free(events, difference);
  const std::int32_t least = pass(numel, wide, "min");
  const std::int32_t nearest = pass(numel, DType::int64, "min");
  free(events, least);
  free(events, distance);
  const std::int32_t shifted = pass(ceil_divide(numel, 2), DType::int64, "bitwise_left_shift");
  const std::int32_t joined = pass(ceil_divide(numel, 2), DType::int64, "bitwise_or");
  free(events, shifted);
  allocate(events, pieces.front());
  for (const std::int32_t gone : {joined, nearest, scaled, largest}) free(events, gone);
}

// clone: the matrix in full (get_original_weight), quantized again.
void Assembler::copy_quantized(std::vector<Event>& events, const model::Weight& weight,
                               const std::vector<std::int32_t>& pieces) {
  const std::int64_t numel = model::elements(weight.shape);
  const std::int64_t half = ceil_divide(numel, 2);
  const DType wide = layout_.arithmetic.compute;
  std::vector<std::int32_t> gone;
  const auto pass = [&](std::int64_t count, DType dtype, std::string_view text) {
    return passing(events, bytes_of(count, dtype), text);
  };
  for (int i = 0; i < 2; ++i) gone.push_back(pass(half, DType::int64, "nibbles"));
  for (int i = 0; i < 2; ++i) gone.push_back(pass(half, wide, "index"));
  for (int i = 0; i < 2; ++i) {
    const std::int32_t repeated = pass(half, wide, "repeat_statistics");
    gone.push_back(pass(half, wide, "mul"));
    free(events, repeated);
  }
  const std::int32_t full = pass(numel, wide, "dequantize");
  for (const std::int32_t made : gone) free(events, made);
  quantize(events, weight, pieces);
  free(events, full);
}

// The first layer, built before everything else and let go when the others are copies of it.
Body Assembler::layer_to_copy(Body& gone) {
  Body body{.layer = "layer to copy", .repeat = 1, .events = {}};
  gone = body;
  for (const model::Segment& segment : graph_.segments) {
    if (!is_layer(segment.blocks.front())) continue;
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        std::vector<std::int32_t> made;
        for (const Piece& piece : pieces_of(layout_, weight)) {
          made.push_back(piece_slot(piece, weight));
        }
        if (quantizes_whole(weight)) {
          const Bytes bytes = bytes_of(model::elements(weight.shape), layout_.arithmetic.compute);
          const std::int32_t full = passing(body.events, bytes, weight.name);
          quantize(body.events, weight, made);
          free(body.events, full);
        } else {
          for (const std::int32_t piece : made) allocate(body.events, piece);
        }
        for (const std::int32_t piece : made) free(gone.events, piece);
      }
    }
    break;
  }
  return body;
}

void Assembler::build_parameters(Phase& phase) {
  const bool copies = variants_.copies_layers && !layout_.gathers && !layout_.on_host.parameters;
  Body gone;
  if (copies) phase.bodies.push_back(layer_to_copy(gone));
  for (const model::Segment& segment : graph_.segments) {
    Body body{.layer = segment.blocks.front().name, .repeat = segment.repeat, .events = {}};
    for (const model::Block& block : segment.blocks) hold_parameters(body.events, block);
    phase.bodies.push_back(std::move(body));
  }
  if (!gone.events.empty()) phase.bodies.push_back(std::move(gone));
}

void Assembler::build_quantized(std::vector<Event>& events, const model::Weight& weight) {
  std::vector<std::int32_t> pieces;
  for (const Piece& piece : pieces_of(layout_, weight)) pieces.push_back(piece_slot(piece, weight));
  copy_quantized(events, weight, pieces);
  built_quantized_[&weight] = std::move(pieces);
}

// copy_: the file's matrix goes to the GPU, is quantized there, and its pieces take the place of
// those that the model was built with.
void Assembler::load_quantized() {
  if (built_quantized_.empty()) return;
  Phase phase{PhaseKind::setup, {}};
  for (const model::Segment& segment : graph_.segments) {
    Body body{.layer = segment.blocks.front().name, .repeat = segment.repeat, .events = {}};
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        const auto built = built_quantized_.find(&weight);
        if (built == built_quantized_.end()) continue;
        const Bytes bytes = bytes_of(model::elements(weight.shape), layout_.arithmetic.compute);
        const std::int32_t full = passing(body.events, bytes, weight.name);
        std::vector<std::int32_t> loaded;
        for (const Piece& piece : pieces_of(layout_, weight)) {
          loaded.push_back(piece_slot(piece, weight));
        }
        quantize(body.events, weight, loaded);
        free(body.events, full);
        for (const std::int32_t old : built->second) free(body.events, old);
      }
    }
    if (!body.events.empty()) phase.bodies.push_back(std::move(body));
  }
  program_.setup.push_back({1, {std::move(phase)}});
}

}  // namespace steelyard::step
