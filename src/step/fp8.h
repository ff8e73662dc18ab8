// Products in fp8: which library casts the operands, how they are scaled, and which of a layer's
// matrices it takes.
//
// Sources: torchao/float8 (config.py, float8_linear.py, fsdp_utils.py), torchtitan (float8.py: the
// output head stays as it is), transformer_engine/pytorch (module/linear.py, module/base.py,
// quantization.py). docs/model/fp8.md.
#pragma once

#include <cstdint>
#include <vector>

#include "base/error.h"
#include "facts/constants.h"
#include "facts/dtype.h"
#include "facts/job.h"
#include "facts/machine.h"
#include "model/graph.h"

namespace steelyard::step {

// Operands are cast by operations of PyTorch, scales are taken from the operand itself | by kernels
// that write both layouts, and keep the cast where the operand was
enum class Fp8Library : std::uint8_t { none, torchao, transformer_engine };

// One scale per tensor | per row of the product | per 128 elements (of a weight 128 x 128) | per 32
// | per 16 elements of 4 bits, and one for all
enum class Fp8Scaling : std::uint8_t { tensor, row, block, microscale, nibble };

struct Fp8 {
  Fp8Library library = Fp8Library::none;
  Fp8Scaling scaling = Fp8Scaling::tensor;
  // The transposed operand is a copy of its own: the GPU multiplies one layout only, or its scales
  // lie along the other dimension.
  bool two_layouts = true;
  // The weights themselves are fp8 where the products read them: gathered so by FSDP (torchao), or
  // held so (Transformer Engine's fp8_model_init).
  bool short_weights = false;
  // Casts of weights live as long as the job and serve every micro-batch; or they are made again in
  // backward (FSDP2 frees what they were made of); or forward keeps them until then.
  bool caches_weights = false, recasts_weights = false;
  // Layers at both ends of the model whose products stay in 16 bits.
  std::int64_t wide_first = 0, wide_last = 0;
  // Attention multiplies in fp8 too, and so do the logits.
  bool attention = false, logits = false;
  // One kernel casts the rows of all experts, not one for each of them.
  bool casts_together = false;
  // The output projection of attention keeps attention's result, which is there anyway.
  bool reuses_attention = false;

  [[nodiscard]] bool on() const { return library != Fp8Library::none; }
  // Tokens of a sequence-parallel group travel in fp8.
  [[nodiscard]] bool gathers_tokens() const {
    return library == Fp8Library::transformer_engine ||
           (library == Fp8Library::torchao && scaling == Fp8Scaling::tensor);
  }

  friend bool operator==(const Fp8&, const Fp8&) = default;
};

// Off unless the job's precision is fp8-mixed, mxfp8-mixed or nvfp4-mixed. Errors: train.fp8 with
// another precision, a recipe that the framework's library (words `fp8*` of its profile) does not
// have, a GPU without fp8 products, by its name.
[[nodiscard]] Result<Fp8> fp8_of(const facts::Job& job, const facts::FrameworkProfile& profile,
                                 const facts::Gpu& gpu);

// A tensor of a cast: elements and type.
struct Fp8Piece {
  std::int64_t numel = 0;
  facts::DType dtype = facts::DType::fp8;
};
// One layout of `numel` elements, rows of `last`: the values and their scales.
[[nodiscard]] std::vector<Fp8Piece> fp8_pieces(Fp8Scaling scaling, std::int64_t numel,
                                               std::int64_t last, bool weight);

// Repeated layers multiply in fp8, not what stands before or behind them.
[[nodiscard]] bool is_fp8_block(const model::Block& block);

// The kernels take dimensions in multiples of 16 alone.
[[nodiscard]] bool fits_fp8(std::int64_t inputs, std::int64_t outputs);

// Whether products of the block are in fp8: a matrix of its is marked.
[[nodiscard]] bool has_fp8(const model::Block& block);

// Sets Weight::fp8 on the matrices that products in fp8 read.
[[nodiscard]] model::Graph with_fp8(model::Graph graph, const Fp8& fp8);

}  // namespace steelyard::step
